"""Where channels lie together in memory, which convolutions on tensor cores and depthwise ones want, and where one after the other."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.backends.layout import CHUNK, ChannelsLast, whole_chunks
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Pointwise
from graphopt.backends.tensor import Tensor

KEEP_CHANNELS = ("AveragePool", "Cast", "Concat", "MaxPool", "Resize", "Slice", "Split", "Upsample")
"""Operators besides elementwise ones whose results have their channels where the inputs have them."""


def channels_last(ctx: Lowering, x: Tensor, chunk: int = CHUNK) -> Tensor:
    """The tensor in memory with all channels together, in chunks of which the last one ends in zeros."""
    lanes = whole_chunks(x.shape[1], chunk)
    layout = None if x.storage is None else x.storage.layout
    if isinstance(layout, ChannelsLast) and layout.lanes == lanes and layout.is_aligned(chunk):
        return x
    return ctx.store(x, lanes)


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
