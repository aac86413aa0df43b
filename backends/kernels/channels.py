"""Moves a tensor between channel blocks and rows, one row of one channel at a time.

The loop along a row is innermost, so that an index mapping on channels (a channel shuffle, say) is worked out once a
row and not once an element, and the other channels of a block are read or written while they are in the cache.
"""

from __future__ import annotations

import math

from graphopt.backends.codegen.builder import KernelBuilder, const
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.window import split_index
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_ELEMENTS = 16384
"""Elements below which the kernel stays on one thread."""


def emit_by_rows(k: KernelBuilder, value: Tensor, out: Storage, block: int) -> None:
    """Store `value` `[n, c, spatial...]` into `out`, `block` channels together; padded lanes of `out` get zeros."""
    layout = out.layout
    batch, channels, *rows, columns = value.shape
    units = [batch, -(-channels // block), *rows]
    kind = loop_kind(value.size, PARALLEL_ELEMENTS)
    with k.loop(math.prod(units), kind, "row") as unit:
        n, group, *place = (k.bind(i) for i in split_index(unit, units))
        with k.loop(block, "serial", "lane") as lane:
            channel = k.bind(group * block + lane)

            def row(is_real: bool) -> None:
                with k.loop(columns, "serial", "x") as x:
                    index = [n, channel, *place, x]
                    element = value.read(k, index) if is_real else const(0, value.dtype)
                    k.store(out.buffer, layout.position(index), element)

            if channels % block == 0:
                row(True)
            elif isinstance(layout, Blocked):
                k.switch([(channel < channels, lambda: row(True))], lambda: row(False))
            else:
                with k.when(channel < channels):
                    row(True)
