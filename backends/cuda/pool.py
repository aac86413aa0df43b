"""Pooling: every thread computes outputs that are neighbours in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.runs import choose_runs
from graphopt.backends.kernels.pool_general import GeneralPool, Output


class DevicePool(GeneralPool):
    """A GeneralPool whose loop over outputs is one grid, in the order of memory."""

    def outputs(self, k: KernelBuilder, body: Output) -> None:
        assert isinstance(k, DeviceBuilder)
        blocked = self.input.is_blocked
        n, channels, *spatial = [*self.input.shape[:2], *(axis.output for axis in self.axes)]
        shape = [n, *spatial, channels] if blocked else [n, channels, *spatial]

        def element(k: DeviceBuilder, place: Sequence[Expr]) -> None:
            body(k, [place[0], place[-1], *place[1:-1]] if blocked else place)

        choose_runs(k, shape, np.dtype(self.input.dtype).itemsize, element).store(k, element)
