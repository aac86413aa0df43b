"""Loop: a loop in the driver, its carried values in buffers that every iteration overwrites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.codegen.program import Loop as LoopStep
from graphopt.backends.lower.bodies import (
    bind_body_input,
    body_of,
    lower_body,
    materialise_captured,
    scalar_in_memory,
)
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.iteration import Cursor, carry, store_slice
from graphopt.backends.lower.operator import Refused
from graphopt.backends.tensor import Tensor, stored


def lower_loop(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """Loop. Its scan outputs need a trip count known at compile time and no condition that may end it earlier."""
    body = body_of(node, "body")
    limit, condition, *initial = (None if value is None else ctx.tensor(value) for value in node.inputs)
    materialise_captured(ctx, body)
    states = _start(ctx, node, [tensor for tensor in initial if tensor is not None])
    counter = ctx.buffer(1, "int64")
    trips = _trips(ctx, limit)
    flag = _flag(ctx, body, condition)
    _bind_inputs(ctx, body, counter, flag, states)
    with ctx.block() as steps:
        goes_on, *results = lower_body(ctx, body)
        scans = results[len(states) :]
        targets = _scan_targets(ctx, node, scans, trips, flag)
        for value, target in zip(scans, targets, strict=True):
            assert isinstance(trips, int)
            store_slice(ctx, value, target, 0, Cursor(counter, trips))
        flags = [] if flag is None else [stored(flag, goes_on.shape)]
        carry(ctx, [*states, *flags], [*results[: len(states)], goes_on][: len(states) + len(flags)])
    ctx.steps.append(LoopStep(trips, flag, counter, steps))
    return [*states, *targets]


def _start(ctx: Lowering, node: ir.Node, initial: Sequence[Tensor]) -> list[Tensor]:
    """The buffers of the carried values, holding the initial ones."""
    states = []
    for value, tensor in zip(node.outputs, initial, strict=False):
        state = ctx.result(value, tensor.shape, tensor.dtype)
        ctx.copy(tensor, state)
        states.append(state)
    return states


def _trips(ctx: Lowering, limit: Tensor | None) -> int | Buffer | None:
    if limit is None:
        return None
    if limit.constant is not None:
        return max(int(limit.constant.item()), 0)
    return scalar_in_memory(ctx, limit)


def _flag(ctx: Lowering, body: ir.Graph, condition: Tensor | None) -> Buffer | None:
    """The buffer of the condition; None where it holds at the start and no iteration changes it."""
    holds = condition is None or (condition.constant is not None and bool(condition.constant.item()))
    if holds and _stays(body):
        return None
    if condition is None:
        condition = ctx.constant(np.array(True))
    return scalar_in_memory(ctx, condition)


def _stays(body: ir.Graph) -> bool:
    """Whether the condition that an iteration gives is the one it got, or constantly true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
    if value is body.inputs[1]:
        return True
    return value is not None and value.const_value is not None and bool(value.const_value.numpy().item())


def _bind_inputs(
    ctx: Lowering, body: ir.Graph, counter: Buffer, flag: Buffer | None, states: Sequence[Tensor]
) -> None:
    number, goes_on, *carried = body.inputs
    bind_body_input(ctx, number, stored(counter, _declared_shape(number)))
    holds = ctx.constant(np.array(True)) if flag is None else stored(flag, ())
    bind_body_input(ctx, goes_on, holds)
    if len(carried) != len(states):
        raise Refused(f"its body takes {len(carried)} carried values, and {len(states)} are given")
    for value, state in zip(carried, states, strict=True):
        bind_body_input(ctx, value, state)


def _declared_shape(value: ir.Value) -> tuple[int, ...]:
    """The iteration number is a scalar, or a tensor of one element where the body says so."""
    return () if value.shape is None else (1,) * len(value.shape)


def _scan_targets(
    ctx: Lowering, node: ir.Node, scans: Sequence[Tensor], trips: int | Buffer | None, flag: Buffer | None
) -> list[Tensor]:
    if scans and not isinstance(trips, int):
        raise Refused(
            "the number of its iterations, which its scan outputs depend on, is computed at run time"
        )
    if scans and flag is not None:
        raise Refused("a condition computed at run time decides how long its scan outputs are")
    outputs = node.outputs[len(node.outputs) - len(scans) :] if scans else ()
    return [
        ctx.result(value, (trips, *scan.shape), scan.dtype)  # type: ignore[arg-type]
        for value, scan in zip(outputs, scans, strict=True)
    ]
