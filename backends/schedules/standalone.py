"""A program of one kernel, made to measure it: its operands have the right sizes and any contents.

It covers as many whole register tiles as its workload has, so that one body of code is compiled instead of up to eight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.function import kernel_function
from graphopt.backends.codegen.program import Buffer, Kernel, Program, Role, Step
from graphopt.backends.layout import Layout
from graphopt.backends.tensor import Index


def whole(extent: int, tile: int) -> int:
    """How much of an extent whole tiles cover; all of it where there is none."""
    return extent // tile * tile or extent


class Standalone:
    """Collects the buffers and the kernel of a program, which does `share` of the work, by the estimate of its cycles."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._inputs: list[Buffer] = []
        self._outputs: list[Buffer] = []
        self._steps: list[Step] = []

    @property
    def program(self) -> Program:
        return Program(self._inputs, self._outputs, self._steps)

    def input(self, size: int, dtype: str = "float32") -> Buffer:
        """An operand of the caller."""
        self._inputs.append(Buffer(f"input{len(self._inputs)}", size, dtype, Role.INPUT))
        return self._inputs[-1]

    def output(self, size: int, dtype: str = "float32") -> Buffer:
        """The result of the caller."""
        self._outputs.append(Buffer(f"output{len(self._outputs)}", size, dtype, Role.OUTPUT))
        return self._outputs[-1]

    def constant(self, size: int, dtype: str) -> Buffer:
        """Weights, whose values do not matter."""
        return Buffer("weights", size, dtype, Role.CONSTANT)

    def temporary(self, size: int) -> Buffer:
        """float32 scratch memory."""
        return Buffer("temporary", size, "float32")

    def relu(self, out: Buffer, layout: Layout) -> Callable[[KernelBuilder, Index, Expr], None]:
        """Stores what is positive of an element."""

        def store(k: KernelBuilder, index: Index, value: Expr) -> None:
            k.store(out, layout.position(index), tirx.op.max(value, const(0.0, "float32")))

        return store

    def add(self, steps: Sequence[Step]) -> None:
        """Add kernels that are made already."""
        self._steps += steps

    def emit(self, emit: Callable[[KernelBuilder], None]) -> None:
        """Add the kernel."""
        builder = KernelBuilder()
        emit(builder)
        function, buffers = kernel_function(builder)
        self._steps.append(Kernel("candidate", function, buffers, frozenset(builder.written), ""))
