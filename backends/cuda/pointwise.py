"""Elementwise kernels: every thread computes one element, neighbours next to each other in memory."""

from __future__ import annotations

from graphopt.backends.codegen.builder import KernelBuilder
from graphopt.backends.tensor import Storage, Tensor, unravel


def store_elements(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Compute every element of `value` into `out`, in the order of its indices."""
    with k.loop(value.size, "independent", "element") as element:
        index = [i if isinstance(i, int) else k.bind(i) for i in unravel(element, value.shape)]
        k.store(out.buffer, out.layout.position(index), value.read(k, index))
