"""Builds kernels for a GPU: outermost independent loops become launches, in which every thread runs one iteration or, where the
body asks for a team, every block of threads does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import INDEX, Expr, Family, KernelBuilder, Local, dtype_of
from graphopt.backends.codegen.inline import Inline
from graphopt.backends.codegen.program import Buffer

WARP = 32
"""Threads that run in step and can read each other's registers."""

INDEPENDENT = ("parallel", "balanced", "independent")
"""Kinds of loops whose iterations may run in any order."""

ALL_LANES = 0xFFFFFFFF


@dataclass(frozen=True)
class Grid:
    """An outermost loop of independent iterations. With a `team`, the variable of its threads, blocks of `threads` share each, and
    `shared` bytes of memory."""

    variable: Any
    extent: int
    statements: list[Any]
    team: Any
    threads: int
    shared: int = 0


class DeviceBuilder(KernelBuilder):
    """A KernelBuilder whose outermost independent loops are grids."""

    def __init__(self, twins: Mapping[Any, Any]) -> None:
        super().__init__()
        self.twins = twins
        self._team: Any = None
        self._team_size = 0
        self._team_shared = 0

    def twin(self, family: Family) -> Family:
        found: Family = self.twins.get(family, family)
        return found

    @property
    def steps(self) -> list[Any]:
        """The outermost statements: grids, and whatever stands between them."""
        return self._blocks[0]

    @contextmanager
    def loop(self, extent: Expr, kind: str = "serial", name: str = "i") -> Iterator[Expr]:
        """A grid where it is outermost and independent; a loop of a thread elsewhere. There are no vectors."""
        if kind in INDEPENDENT and len(self._blocks) == 1 and isinstance(extent, int):
            with self._grid(extent, name) as variable:
                yield variable
            return
        with super().loop(extent, "unroll" if kind == "unroll" else "serial", name) as variable:
            yield variable

    @contextmanager
    def _grid(self, extent: int, name: str) -> Iterator[Expr]:
        variable = tirx.Var(self._name(name), INDEX)
        self._team, self._team_size, self._team_shared = None, 0, 0
        with self._block() as statements:
            yield variable
        if extent:
            team = (self._team, self._team_size, self._team_shared)
            self.append(Grid(variable, extent, statements, *team))

    def team(self, threads: int) -> Expr:
        """Let a whole block of threads run each iteration of the grid around; gives the number of the thread in it."""
        if self._team is None:
            self._team, self._team_size = tirx.Var(self._name("thread"), INDEX), threads
        assert self._team_size == threads
        return self._team

    def shared(self, size: int, dtype: str) -> Local:
        """Memory of a team, living until the innermost open block ends."""
        storage = tirx.decl_buffer((size,), dtype, self._name("shared"), scope="shared")
        self.append(tirx.AllocBuffer(storage, {}))
        return Local(storage, dtype)

    def overlay(self, size: int, dtype: str) -> Local:
        """Memory of a team that may be large. All that a team asks for this way begins at the same place.

        Names tell the dtype, as one text must not have two of a name that differ in it."""
        storage = tirx.decl_buffer((size,), dtype, self._name(f"overlay_{dtype}_"), scope="shared.dyn")
        self.append(tirx.AllocBuffer(storage, {}))
        self._team_shared = max(self._team_shared, size * np.dtype(dtype).itemsize)
        return Local(storage, dtype)

    def wait(self) -> None:
        """No thread of the team goes on before all have come here, and what they wrote to shared memory can be read."""
        self.append(tirx.Evaluate(tirx.op.tvm_storage_sync("shared")))

    def exchange(self, value: Expr, distance: int) -> Expr:
        """The value of the thread of the warp whose number differs by one bit, that of `distance`."""
        mask = tirx.const(ALL_LANES, "uint32")
        return self.bind(tirx.op.tvm_warp_shuffle_xor(mask, value, distance, WARP, WARP))

    def assign(self, local: Local, index: Expr, value: Expr, lanes: int = 1) -> None:
        """Write scratch memory; a broadcast value element by element."""
        if not isinstance(value, tirx.Broadcast):
            super().assign(local, index, value, lanes)
            return
        for lane in range(int(value.lanes)):
            super().assign(local, index + lane, value.value)

    def invoke(self, function: Inline, *arguments: Expr) -> None:
        """Call a function of CUDA C for its effects."""
        self.functions[function] = None
        self.append(tirx.Evaluate(tirx.call_extern("int32", function.name, *arguments)))

    def address(self, buffer: Buffer, offset: Expr) -> Expr:
        """Where an element of a buffer lies."""
        return tirx.op.address_of(tirx.BufferLoad(self._declare(buffer), [offset]))

    def fold_warp(self, value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """The values of all threads of a warp folded into one that each of them has."""
        dtype = dtype_of(value)
        distance = WARP // 2
        while distance:
            value = self.bind(combine(value, tirx.Cast(dtype, self.exchange(value, distance))))
            distance //= 2
        return value
