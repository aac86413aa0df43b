"""If: both arms are lowered, the driver runs one of them, and each writes its results into the same buffers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.backends.codegen.program import Branch, Step
from graphopt.backends.lower.bodies import body_of, lower_body, scalar_in_memory
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.loops import lower_loop
from graphopt.backends.lower.operator import Lowered, Operator, Refused
from graphopt.backends.lower.scan import lower_scan
from graphopt.backends.tensor import Tensor


def lower_if(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """If, whose arms must agree in the shapes and dtypes of their results."""
    condition = ctx.tensor(node.inputs[0])  # type: ignore[arg-type]
    if condition.constant is not None:
        return lower_body(ctx, body_of(node, "then_branch" if condition.constant.item() else "else_branch"))
    then, otherwise = (body_of(node, name) for name in ("then_branch", "else_branch"))
    flag = scalar_in_memory(ctx, condition)
    with ctx.block() as steps_of_then:
        first = lower_body(ctx, then)
    with ctx.block() as steps_of_else:
        second = lower_body(ctx, otherwise)
    _check_agreement(first, second)
    targets = [ctx.result(value, t.shape, t.dtype) for value, t in zip(node.outputs, first, strict=True)]
    for steps, results in ((steps_of_then, first), (steps_of_else, second)):
        _append_copies(ctx, steps, results, targets)
    ctx.steps.append(Branch(flag, steps_of_then, steps_of_else))
    return targets


def _check_agreement(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise Refused(
                f"its output {number} is {a.dtype}{list(a.shape)} in one branch and {b.dtype}{list(b.shape)} in the other"
            )


def _append_copies(
    ctx: Lowering, steps: list[Step], sources: Sequence[Tensor], targets: Sequence[Tensor]
) -> None:
    with ctx.block() as copies:
        for source, target in zip(sources, targets, strict=True):
            ctx.copy(source, target)
    steps.extend(copies)


OPERATORS: dict[str, Operator] = {
    "If": Lowered(lower_if),
    "Loop": Lowered(lower_loop),
    "Scan": Lowered(lower_scan),
}
