"""Where channels lie together in memory, which convolutions on tensor cores and depthwise ones want, and where one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graphopt.backends.codegen.program import Buffer, Role
from graphopt.backends.layout import CHUNK, ChannelsLast, Strided, row_major_strides, whole_chunks
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Pointwise, attribute
from graphopt.backends.tensor import Tensor, stored

KEEP_CHANNELS = ("AveragePool", "Cast", "Concat", "MaxPool", "Resize", "Slice", "Split", "Upsample")
"""Operators besides elementwise ones whose results have their channels where the inputs have them."""


def channels_last(ctx: Lowering, x: Tensor, chunk: int = CHUNK) -> Tensor:
    """The tensor in memory with all channels together, in chunks of which the last one ends in zeros."""
    lanes = whole_chunks(x.shape[1], chunk)
    layout = None if x.storage is None else x.storage.layout
    if isinstance(layout, ChannelsLast) and layout.lanes == lanes and layout.is_aligned(chunk):
        return x
    return _as_they_lie(x, chunk) or ctx.store(x, lanes)


def _as_they_lie(x: Tensor, chunk: int) -> Tensor | None:
    """A tensor with other axes before its channels, as a Transpose of one whose channels are last is; None for any other."""
    if x.storage is None or not isinstance(layout := x.storage.layout, Strided):
        return None
    batch, channels, *spatial = x.shape
    block = layout.strides[-1]
    n, *places, lane = row_major_strides((batch, *spatial, block))
    there = ChannelsLast(x.shape, block, layout.offset, channels)
    if layout.strides != (n, lane, *places) or channels % chunk or not there.is_aligned(chunk):
        return None
    return stored(x.storage.buffer, x.shape, there, x.dtype)


def place_of_transposed(ctx: Lowering, value: ir.Value, shape: Sequence[int], dtype: str) -> Tensor | None:
    """The memory of an output that is nothing but a value with its channels last, whose Transpose is then done; None where there is no
    such output, or channels would be followed by zeros."""
    users = [user for user, _ in value.uses()]
    if len(users) != 1 or value.is_graph_output() or shape[1] % CHUNK:
        return None
    node = users[0]
    order = [0, *range(2, len(shape)), 1]
    if node.op_type != "Transpose" or attribute(node, "perm") != order:
        return None
    result = node.outputs[0]
    if ctx.outputs.get(result, result) is not None:
        return None
    buffer = ctx.outputs[result] = Buffer(result.name or "", math.prod(shape), dtype, Role.OUTPUT)
    ctx.values[result] = stored(buffer, [shape[i] for i in order])
    ctx.done.add(node)
    ctx.values[value] = placed = stored(buffer, shape, ChannelsLast.whole(tuple(shape), shape[1]))
    return placed


def block_of_result(ctx: Lowering, value: ir.Value, channels: int) -> int:
    """The block in which a convolution stores a value: all channels, ending with zeros where that makes chunks whole. One after the other
    where no convolution follows and they would have to be moved, as those of outputs."""
    home = ctx.homes.get(value)
    odd = channels % CHUNK != 0 or (home is not None and home.shape[1] % CHUNK != 0)
    at_end = value.is_graph_output() and not value.uses()
    return ctx.lanes if (odd or at_end) and not _leads_to_convolution(ctx, value) else whole_chunks(channels)


def _leads_to_convolution(ctx: Lowering, value: ir.Value) -> bool:
    """Whether a convolution reads a value, or what has the same channels."""
    seen: set[ir.Value] = set()
    queue = [value]
    while queue:
        users = [user for user, _ in queue.pop().uses()]
        if any(user.op_type == "Conv" for user in users):
            return True
        found = [result for user in users if _keeps_channels(ctx, user) for result in user.outputs]
        queue += [result for result in found if result not in seen]
        seen.update(found)
    return False


def _keeps_channels(ctx: Lowering, node: ir.Node) -> bool:
    return node.op_type in KEEP_CHANNELS or isinstance(ctx.operator(node), Pointwise)
