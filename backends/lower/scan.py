"""Scan: a loop in the driver over slices of its inputs, with slices of its outputs written in every iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.backends.codegen.program import Loop as LoopStep
from graphopt.backends.codegen.program import Step
from graphopt.backends.lower.bodies import bind_body_input, body_of, lower_body, materialise_captured
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.iteration import Cursor, carry, current_slice, store_slice
from graphopt.backends.lower.operator import Refused, attribute
from graphopt.backends.tensor import Tensor


def lower_scan(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Scan, opset 8 (over each element of a batch) and from 9 on."""
    return _scan_of_batch(ctx, node) if ctx.opset(node) < 9 else _scan(ctx, node)


@dataclass(frozen=True)
class _Axis:
    """The axis of one scan input or output, and whether it is walked backwards."""

    axis: int
    backwards: bool


def _axes(node: ir.Node, what: str, count: int) -> list[_Axis]:
    axes = attribute(node, f"scan_{what}_axes") or [0] * count
    backwards = attribute(node, f"scan_{what}_directions") or [0] * count
    return [_Axis(axis, bool(direction)) for axis, direction in zip(axes, backwards, strict=True)]


def _scan(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    body = body_of(node, "body")
    count = attribute(node, "num_scan_inputs")
    operands = [ctx.tensor(value) for value in node.inputs if value is not None]
    initial, sources = (
        operands[: len(operands) - count],
        [_ready(ctx, t) for t in operands[len(operands) - count :]],
    )
    axes = [
        _Axis(a.axis % t.rank, a.backwards) for a, t in zip(_axes(node, "input", count), sources, strict=True)
    ]
    trips = {source.shape[a.axis] for a, source in zip(axes, sources, strict=True)}
    if len(trips) != 1:
        raise Refused(f"its scan inputs have different lengths: {sorted(trips)}")
    materialise_captured(ctx, body)
    states = []
    for value, tensor in zip(node.outputs, initial, strict=False):
        states.append(ctx.result(value, tensor.shape, tensor.dtype))
        ctx.copy(tensor, states[-1])
    loop = _Body(ctx, body, trips.pop())
    with ctx.block() as steps:
        slices = [loop.slice(source, a) for a, source in zip(axes, sources, strict=True)]
        scans = loop.run(states, slices)
        targets = []
        for value, scan, a in zip(
            node.outputs[len(states) :], scans, _axes(node, "output", len(scans)), strict=True
        ):
            axis = a.axis % (scan.rank + 1)
            shape = (*scan.shape[:axis], loop.trips, *scan.shape[axis:])
            targets.append(ctx.result(value, shape, scan.dtype))
            store_slice(ctx, scan, targets[-1], axis, loop.cursor(a.backwards))
        loop.advance(states)
    ctx.steps.append(loop.step(steps))
    return [*states, *targets]


def _scan_of_batch(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Opset 8: states are `[batch, ...]`, scan inputs and outputs `[batch, step, ...]`; one loop inside another."""
    if node.inputs[0] is not None:
        raise Refused("sequence lengths (Scan of opset 8) are not supported")
    body = body_of(node, "body")
    count = attribute(node, "num_scan_inputs")
    operands = [_ready(ctx, ctx.tensor(value)) for value in node.inputs[1:] if value is not None]
    initial, sources = operands[: len(operands) - count], operands[len(operands) - count :]
    directions = attribute(node, "directions") or [0] * count
    materialise_captured(ctx, body)
    batch, trips = sources[0].shape[:2]
    rows = Cursor(ctx.buffer(1, "int64"), batch)
    loop = _Body(ctx, body, trips)
    states = [ctx.new(tensor.shape[1:], tensor.dtype) for tensor in initial]
    finals = [ctx.result(v, t.shape, t.dtype) for v, t in zip(node.outputs, initial, strict=False)]
    with ctx.block() as outer:
        for tensor, state in zip(initial, states, strict=True):
            ctx.copy(current_slice(tensor, 0, rows), state)
        with ctx.block() as inner:
            slices = [
                loop.slice(current_slice(source, 0, rows), _Axis(0, bool(backwards)))
                for source, backwards in zip(sources, directions, strict=True)
            ]
            scans = loop.run(states, slices)
            targets = [ctx.new((trips, *scan.shape), scan.dtype) for scan in scans]
            for scan, target in zip(scans, targets, strict=True):
                store_slice(ctx, scan, target, 0, loop.cursor(False))
            loop.advance(states)
        ctx.steps.append(loop.step(inner))
        outputs = [
            ctx.result(value, (batch, *target.shape), target.dtype)
            for value, target in zip(node.outputs[len(states) :], targets, strict=True)
        ]
        for source, out in zip([*states, *targets], [*finals, *outputs], strict=True):
            store_slice(ctx, source, out, 0, rows)
    ctx.steps.append(LoopStep(batch, None, rows.counter, outer))
    return [*finals, *outputs]


def _ready(ctx: Lowering, tensor: Tensor) -> Tensor:
    return tensor if tensor.constant is not None else ctx.in_memory(tensor)


class _Body:
    """One walk over the slices: the counter and what an iteration leaves to the next."""

    def __init__(self, ctx: Lowering, body: ir.Graph, trips: int) -> None:
        self.ctx = ctx
        self.body = body
        self.trips = trips
        self.counter = ctx.buffer(1, "int64")
        self.following: list[Tensor] = []

    def cursor(self, backwards: bool) -> Cursor:
        return Cursor(self.counter, self.trips, backwards)

    def slice(self, source: Tensor, axis: _Axis) -> Tensor:
        return current_slice(source, axis.axis, self.cursor(axis.backwards))

    def run(self, states: Sequence[Tensor], slices: Sequence[Tensor]) -> list[Tensor]:
        """Lower the body and give its scan outputs."""
        for value, tensor in zip(self.body.inputs, [*states, *slices], strict=True):
            bind_body_input(self.ctx, value, tensor)
        results = lower_body(self.ctx, self.body)
        self.following = results[: len(states)]
        return results[len(states) :]

    def advance(self, states: Sequence[Tensor]) -> None:
        """Make the states of the next iteration the current ones."""
        carry(self.ctx, states, self.following)

    def step(self, steps: list[Step]) -> LoopStep:
        return LoopStep(self.trips, None, self.counter, steps)
