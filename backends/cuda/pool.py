"""Pooling: every thread computes one output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from graphopt.backends.codegen.builder import Expr, KernelBuilder
from graphopt.backends.kernels.pool_general import GeneralPool
from graphopt.backends.kernels.window import split_index


class DevicePool(GeneralPool):
    """A GeneralPool whose loop over outputs is one grid, in the order of memory."""

    @contextmanager
    def outputs(self, k: KernelBuilder) -> Iterator[list[Expr]]:
        n, channels, *spatial = [*self.input.shape[:2], *(axis.output for axis in self.axes)]
        shape = [n, *spatial, channels] if self.input.is_blocked else [n, channels, *spatial]
        with k.loop(math.prod(shape), "independent", "output") as number:
            index = [k.bind(i) for i in split_index(number, shape)]
            yield [index[0], index[-1], *index[1:-1]] if self.input.is_blocked else index
