"""Elementwise kernels: every thread computes one element, neighbours next to each other in memory."""

from __future__ import annotations

import math

from graphopt.backends.codegen.builder import KernelBuilder, const
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor, unravel


def store_elements(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Compute every element of `value` into `out`, in the order of memory; zeros where blocks have no channels."""
    layout = out.layout
    shape = layout.physical_shape(value.shape)
    with k.loop(math.prod(shape), "independent", "element") as element:
        physical = [i if isinstance(i, int) else k.bind(i) for i in unravel(element, shape)]
        index = layout.logical(physical)
        if isinstance(layout, Blocked) and layout.padded_lanes:
            exists = index[1] < value.shape[1]
            result = k.guard(exists, lambda: value.reader(k, index), const(0, value.dtype))
        else:
            result = value.read(k, index)
        k.store(out.buffer, layout.position(index), result)
