"""Elementwise kernels: every thread computes a run of neighbouring elements."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.cuda.builder import DeviceBuilder, element_size
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor


def store_elements(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Compute every element of `value` into `out`; zeros where blocks have no channels."""
    assert isinstance(k, DeviceBuilder)
    layout = out.layout

    def element(k: KernelBuilder, physical: Sequence[Expr]) -> None:
        index = layout.logical(physical)
        if isinstance(layout, Blocked) and layout.padded_lanes:
            exists = index[1] < value.shape[1]
            result = k.guard(exists, lambda: value.reader(k, index), const(0, value.dtype))
        else:
            result = value.read(k, index)
        k.store(out.buffer, layout.position(index), result)

    shape = layout.physical_shape(value.shape)
    choose_runs(k, shape, element_size(out.buffer), element).store(k, element)
