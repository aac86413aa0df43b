"""The driver: one function that runs the steps of a program over pointers into inputs, outputs, weights and arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import ir, tirx

from graphopt.backends.codegen.builder import storage_dtype
from graphopt.backends.codegen.function import pointer, raw_function
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Branch, Buffer, Kernel, Loop, Program, Role, Step

TICK = "graphopt_tick"
"""In a profiled library, called with -1 at the start and with its number after each kernel (see glue.py)."""


def driver_function(
    program: Program, plan: MemoryPlan, symbols: Mapping[Kernel, str], profile: bool = False
) -> Any:
    """`int32 driver(weights, inputs..., outputs..., workspace)`; `symbols` gives the function of each kernel."""
    return _Driver(program, plan, symbols, profile).build()


class _Driver:
    def __init__(
        self, program: Program, plan: MemoryPlan, symbols: Mapping[Kernel, str], profile: bool
    ) -> None:
        self.numbers = {kernel: i for i, kernel in enumerate(program.kernels())} if profile else {}
        self.program = program
        self.plan = plan
        self.symbols = symbols
        self.weights = pointer("weights", "uint8")
        self.workspace = pointer("workspace", "uint8")
        self.external = {
            buffer: pointer(f"external{i}", "uint8")
            for i, buffer in enumerate([*program.inputs, *program.outputs])
        }
        self.scalars: dict[Buffer, Any] = {}

    def build(self) -> Any:
        """The function. Its pointers may alias: kernels write the scalars that it reads."""
        body = [*([_tick(-1)] if self.numbers else []), *self._steps(self.program.steps)]
        views = [tirx.DeclBuffer(view, data=self._typed(buffer)) for buffer, view in self.scalars.items()]
        parameters = [self.weights, *self.external.values(), self.workspace]
        return raw_function(parameters, [*views, *body]).without_attr("tirx.noalias")

    def _steps(self, steps: Sequence[Step]) -> list[Any]:
        return [statement for step in steps for statement in self._step(step)]

    def _step(self, step: Step) -> list[Any]:
        if isinstance(step, Kernel):
            arguments = [self._pointer(buffer) for buffer in step.buffers]
            call = tirx.Evaluate(tirx.call_extern("int32", self.symbols[step], *arguments))
            return [call, _tick(self.numbers[step])] if self.numbers else [call]
        if isinstance(step, Branch):
            then, otherwise = (_sequence(self._steps(arm)) for arm in (step.then, step.otherwise))
            return [tirx.IfThenElse(self._flag(step.condition), then, otherwise)]
        return self._loop(step)

    def _loop(self, loop: Loop) -> list[Any]:
        one, zero = tirx.const(1, "int64"), tirx.const(0, "int64")
        go_on: Any = tirx.const(1, "bool")
        if loop.trips is not None:
            trips = (
                self._scalar(loop.trips)
                if isinstance(loop.trips, Buffer)
                else tirx.const(loop.trips, "int64")
            )
            go_on = tirx.LT(self._scalar(loop.counter), trips)
        if loop.condition is not None:
            go_on = tirx.And(go_on, self._flag(loop.condition))
        advance = self._set(loop.counter, self._scalar(loop.counter) + one)
        body = tirx.SeqStmt([*self._steps(loop.body), advance])
        return [self._set(loop.counter, zero), tirx.While(go_on, body)]

    def _view(self, buffer: Buffer) -> Any:
        if buffer not in self.scalars:
            name = f"scalar{len(self.scalars)}"
            self.scalars[buffer] = tirx.decl_buffer((1,), storage_dtype(buffer.dtype), name, data_alignment=1)
        return self.scalars[buffer]

    def _scalar(self, buffer: Buffer) -> Any:
        return tirx.BufferLoad(self._view(buffer), [tirx.const(0, "int32")])

    def _flag(self, buffer: Buffer) -> Any:
        return tirx.NE(self._scalar(buffer), tirx.const(0, "int8"))

    def _set(self, buffer: Buffer, value: Any) -> Any:
        return tirx.BufferStore(self._view(buffer), value, [tirx.const(0, "int32")])

    def _pointer(self, buffer: Buffer) -> Any:
        if buffer in self.external:
            return self.external[buffer]
        base, offset = (
            (self.weights, self.plan.weights[buffer])
            if buffer.role is Role.CONSTANT
            else (self.workspace, self.plan.arena[buffer])
        )
        return base if offset == 0 else tirx.op.handle_add_byte_offset(base, tirx.const(offset, "int64"))

    def _typed(self, buffer: Buffer) -> Any:
        kind = ir.PointerType(ir.PrimType(storage_dtype(buffer.dtype)), "global")
        return tirx.op.reinterpret(kind, self._pointer(buffer))


def _tick(number: int) -> Any:
    return tirx.Evaluate(tirx.call_extern("int32", TICK, tirx.const(number, "int32")))


def _sequence(statements: list[Any]) -> Any:
    if len(statements) == 1:
        return statements[0]
    return tirx.SeqStmt(statements) if statements else tirx.Evaluate(tirx.const(0, "int32"))
