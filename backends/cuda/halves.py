"""Operators on float32 whose operands were rounded to float16: what they multiply are halves, their sums stay float32.

The model says so in standard operators: Cast to float16 and back stands before an operand, and a weight is a float32 that float16
holds. What kernels store are the halves, which become float32 where they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from graphopt.backends.cuda.attention import choose_attention, half_of
from graphopt.backends.lower import casts
from graphopt.backends.lower.casts import convert
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.convolution import lower_conv
from graphopt.backends.lower.matmul import lower_gemm, lower_matmul
from graphopt.backends.lower.operator import Anchor, Lowered, Operator, Varying, dtype_of_value
from graphopt.backends.tensor import Tensor, lazy

OPERANDS = 2


def _choose_cast(node: ir.Node) -> Operator:
    """float16 becomes float32 where it is read, so that it is what kernels store."""
    types = [None if value is None else value.dtype for value in (node.inputs[0], node.outputs[0])]
    if types == [ir.DataType.FLOAT16, ir.DataType.FLOAT] and not node.outputs[0].is_graph_output():
        return Lowered(_widen)
    chosen = casts.OPERATORS["Cast"]
    assert isinstance(chosen, Varying)
    return chosen.choose(node)


def _widen(ctx: Lowering, node: ir.Node) -> list[Tensor]:
    """What several kernels read is rounded once."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if len(value.uses()) > 1:
        ctx.values[source] = ctx.in_memory(ctx.tensor(source))
    x, dtype = ctx.tensor(source), dtype_of_value(value)
    return [lazy(x.shape, dtype, lambda k, index: convert(x.read(k, index), dtype), x.cost, x.block)]


def _half_of(ctx: Lowering, value: ir.Value | None) -> Tensor | None:
    """A float32 operand as the halves that it consists of; None where it does not."""
    if value is None or value.dtype != ir.DataType.FLOAT:
        return None
    if value.const_value is not None:
        array = value.const_value.numpy()
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16)
        return ctx.constant(rounded) if np.array_equal(rounded.astype(np.float32), array) else None
    source = half_of(value)
    return None if source is None else ctx.tensor(source)


@contextmanager
def _as_halves(ctx: Lowering, node: ir.Node) -> Iterator[None]:
    """While the body runs, the operands of a node are halves, if all are."""
    values = [value for value in node.inputs[:OPERANDS] if value is not None]
    halves = {value: half for value in values if (half := _half_of(ctx, value)) is not None}
    before = {value: ctx.tensor(value) for value in halves}
    constant = all(half.constant is not None for half in halves.values())
    if len(halves) == len(set(values)) and not constant:
        ctx.values.update(halves)
    yield
    ctx.values.update(before)


def _of_halves(lower: Callable[[Lowering, ir.Node], None]) -> Anchor:
    def lowered(ctx: Lowering, node: ir.Node) -> None:
        with _as_halves(ctx, node):
            lower(ctx, node)

    return Anchor(lowered)


OPERATORS: dict[str, Operator | Varying] = {
    "Attention": Varying(choose_attention),
    "Cast": Varying(_choose_cast),
    "Conv": _of_halves(lower_conv),
    "Gemm": _of_halves(lower_gemm),
    "MatMul": _of_halves(lower_matmul),
}
