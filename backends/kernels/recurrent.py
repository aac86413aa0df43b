"""The recurrence of LSTM, GRU and RNN: one kernel walks the whole sequence, its gates held in vector registers.

The input's part of every gate is computed beforehand for all steps at once. Rows of the batch are independent of each
other, so that each task takes a tile of rows through all steps. Hidden units are padded to whole vectors; padded lanes
repeat the last unit and are never stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, Local, broadcast, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.rows import map_row
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Tensor

PARALLEL_MACS = 100_000
"""Multiply-adds of a sequence below which a recurrence stays on one thread."""

ACCUMULATORS = 16
"""Vectors of gates that a tile holds at most."""

Activation = Callable[[KernelBuilder, Expr], Expr]


@dataclass(frozen=True)
class RecurrentShape:
    """Extents of a recurrence. `lanes` is the width of its vectors of hidden units, `gates` their number a unit."""

    steps: int
    batch: int
    directions: int
    hidden: int
    gates: int
    lanes: int

    @property
    def blocks(self) -> int:
        """Vectors of hidden units."""
        return -(-self.hidden // self.lanes)

    @property
    def padded(self) -> int:
        """Hidden units in whole vectors."""
        return self.blocks * self.lanes

    @property
    def macs(self) -> int:
        return self.steps * self.batch * self.directions * self.gates * self.hidden * self.padded


@dataclass(frozen=True)
class RecurrentTile:
    """`rows` of the batch times `vectors` of hidden units, for all gates of a phase."""

    rows: int
    vectors: int


def choose_lanes(hidden: int, lanes: int) -> int:
    """The register's width, or the power of two from 2 on that a smaller number of hidden units fits into."""
    while lanes > 2 and lanes // 2 >= hidden:
        lanes //= 2
    return lanes


def choose_tile(shape: RecurrentShape) -> RecurrentTile:
    """As many rows as registers allow without many idle ones in the last tile, then as many vectors."""
    limit = max(min(ACCUMULATORS // shape.gates, shape.batch), 1)
    rows = min(range(limit, 0, -1), key=lambda r: -(-shape.batch // r) * (r * shape.gates + shape.gates))
    fitting = (v for v in range(1, shape.blocks + 1) if shape.blocks % v == 0)
    vectors = max((v for v in fitting if v * rows * shape.gates <= ACCUMULATORS), default=1)
    return RecurrentTile(rows, vectors)


def gate_columns(shape: RecurrentShape, order: Sequence[int]) -> np.ndarray[Any, Any]:
    """For every padded unit of the gates in `order`, the row of the weights it stands for: `[gate, unit]`."""
    units = np.minimum(np.arange(shape.padded), shape.hidden - 1)
    return np.array(order)[:, None] * shape.hidden + units[None, :]


@dataclass(frozen=True)
class At:
    """Where a vector of hidden units is: direction, step (as in the input), row of the batch, first unit."""

    direction: Expr
    step: Expr
    row: Expr
    unit: Expr


@dataclass(frozen=True)
class State:
    """A vector of `units` for every direction and row of the batch, which changes from step to step."""

    buffer: Buffer
    batch: int
    units: int

    def position(self, at: At) -> Expr:
        return (at.direction * self.batch + at.row) * self.units + at.unit


@dataclass(frozen=True)
class Gates:
    """The gates of one hidden unit; `positions` are theirs in the tile's sums."""

    builder: KernelBuilder
    sums: Local
    positions: Sequence[Expr]

    def __getitem__(self, gate: int) -> Expr:
        return self.sums[self.positions[gate]]

    def __setitem__(self, gate: int, value: Expr) -> None:
        self.builder.assign(self.sums, self.positions[gate], value)


@dataclass(frozen=True)
class Phase:
    """One multiplication of a state with the recurrent weights of some gates.

    `weights` are `[direction, block, source unit, gate, lane]`. `initial(k, at)` gives the vectors the gates start from.
    Each of the `stages(k, at, gates)` then runs over the lanes of the sums, one after another: short loops compile
    much faster than one that holds several activations.
    """

    gates: int
    source: State
    weights: Buffer
    initial: Callable[[KernelBuilder, At], Sequence[Expr]]
    stages: Sequence[Callable[[KernelBuilder, At, Gates], None]]


class Cell(ABC):
    """What a kind of recurrent network computes in a step."""

    @property
    @abstractmethod
    def following(self) -> State:
        """The hidden state after the current step."""

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The multiplications of a step, in order."""

    @abstractmethod
    def states(self) -> Sequence[tuple[State, Tensor | None, State, Tensor | None]]:
        """Every state: itself, its initial value (zero if absent), its next value, and where its last one goes.

        A state that no other unit reads may be its own next value. Tensors are indexed by direction, row and unit.
        """


@dataclass(frozen=True)
class RecurrentKernel:
    """Emits a recurrence. `reverse` tells, by direction, whether it walks backwards; `first` is its first direction.

    `lengths[row]`, if given, is the number of steps of a row; beyond it the output is zero and the state stays.
    `output` is indexed by step, direction, row and unit.
    """

    shape: RecurrentShape
    reverse: Sequence[bool]
    first: int
    cell: Cell
    lengths: Tensor | None
    output: Tensor | None
    dtype: str

    def emit(self, k: KernelBuilder) -> None:
        shape, tile = self.shape, choose_tile(self.shape)
        units = [len(self.reverse), -(-shape.batch // tile.rows)]
        parallel = shape.macs >= PARALLEL_MACS and np.prod(units) > 1
        with k.loop(int(np.prod(units)), "parallel" if parallel else "serial", "unit") as unit:
            direction, row_tile = (k.bind(index) for index in split_index(unit, units))
            last = const(shape.batch - 1, "int32")
            rows = [k.bind(tirx.op.min(row_tile * tile.rows + r, last)) for r in range(tile.rows)]
            direction = direction + self.first
            for row in rows:
                self._start(k, At(direction, 0, row, 0))
            with k.loop(shape.steps, "serial", "step") as step:
                self._step(k, direction, self._step_of_input(k, direction, step), rows, tile)
            for row in rows:
                self._end(k, At(direction, 0, row, 0))

    def _step_of_input(self, k: KernelBuilder, direction: Expr, step: Expr) -> Expr:
        backwards = self.shape.steps - 1 - step
        if all(self.reverse):
            return k.bind(backwards)
        if not any(self.reverse):
            return step
        return k.bind(tirx.Select(tirx.EQ(direction, self.first), step, backwards))

    def _start(self, k: KernelBuilder, at: At) -> None:
        zero = const(0, self.dtype)
        for state, initial, _, _ in self.cell.states():
            with k.loop(state.units, "serial", "unit") as unit:
                value = zero
                if initial is not None:
                    present = tirx.op.min(unit, const(self.shape.hidden - 1, "int32"))
                    value = initial.read(k, [at.direction, at.row, present])
                k.store(state.buffer, state.position(at) + unit, value)

    def _step(
        self, k: KernelBuilder, direction: Expr, step: Expr, rows: Sequence[Expr], tile: RecurrentTile
    ) -> None:
        for phase in self.cell.phases():
            with k.loop(self.shape.blocks // tile.vectors, "serial", "block") as block:
                _PhaseTile(self.shape, tile, phase, self.dtype).emit(k, direction, step, rows, block)
        for row in rows:
            self._advance(k, At(direction, step, row, 0))

    def _advance(self, k: KernelBuilder, at: At) -> None:
        """Store a row's output and make its next states the current ones."""
        valid = None
        if self.lengths is not None:
            valid = k.bind(at.step < self.lengths.read(k, [at.row]))
        if self.output is not None:
            self._store_output(k, at, self.output, valid)
        for state, _, following, _ in self.cell.states():
            if following is state:
                continue

            def move(unit: Expr, state: State = state, following: State = following) -> None:
                value = k.load(following.buffer, following.position(at) + unit)
                if valid is not None:
                    value = tirx.Select(valid, value, k.load(state.buffer, state.position(at) + unit))
                k.store(state.buffer, state.position(at) + unit, value)

            map_row(k, state.units, self.shape.lanes, move)

    def _store_output(self, k: KernelBuilder, at: At, output: Tensor, valid: Expr | None) -> None:
        following = self.cell.following

        def store(unit: Expr) -> None:
            value = k.load(following.buffer, following.position(at) + unit)
            if valid is not None:
                value = tirx.Select(valid, value, const(0, self.dtype))
            _store(k, output, [at.step, at.direction, at.row, unit], value)

        map_row(k, self.shape.hidden, self.shape.lanes, store)

    def _end(self, k: KernelBuilder, at: At) -> None:
        for state, _, _, final in self.cell.states():
            if final is None:
                continue
            with k.loop(self.shape.hidden, "serial", "unit") as unit:
                value = k.load(state.buffer, state.position(at) + unit)
                _store(k, final, [at.direction, at.row, unit], value)


@dataclass(frozen=True)
class _PhaseTile:
    """The multiplication of one phase for a tile of rows and vectors of hidden units."""

    shape: RecurrentShape
    tile: RecurrentTile
    phase: Phase
    dtype: str

    def emit(self, k: KernelBuilder, direction: Expr, step: Expr, rows: Sequence[Expr], block: Expr) -> None:
        shape, phase, lanes = self.shape, self.phase, self.shape.lanes
        places = [
            At(direction, step, row, (block * self.tile.vectors + v) * lanes)
            for row in rows
            for v in range(self.tile.vectors)
        ]
        sums = k.local(len(places) * phase.gates * lanes, self.dtype)
        for i, at in enumerate(places):
            for gate, start in enumerate(phase.initial(k, at)):
                k.assign(sums, self._at(i, gate), start, lanes)
        with k.loop(shape.hidden, "serial", "source") as source:
            self._accumulate(k, sums, direction, rows, block, source)
        for i, at in enumerate(places):
            for stage in phase.stages:
                with k.loop(lanes, "vector", "lane") as lane:
                    gates = Gates(k, sums, [self._at(i, gate) + lane for gate in range(phase.gates)])
                    stage(k, At(at.direction, at.step, at.row, at.unit + lane), gates)

    def _at(self, place: int, gate: int) -> int:
        return (place * self.phase.gates + gate) * self.shape.lanes

    def _accumulate(
        self, k: KernelBuilder, sums: Local, direction: Expr, rows: Sequence[Expr], block: Expr, source: Expr
    ) -> None:
        phase, lanes, vectors = self.phase, self.shape.lanes, self.tile.vectors
        weights = []
        for v in range(vectors):
            row: Expr = (direction * self.shape.blocks + block * vectors + v) * self.shape.hidden + source
            offsets = [(row * phase.gates + gate) * lanes for gate in range(phase.gates)]
            weights.append([k.bind(k.load_vector(phase.weights, offset, lanes)) for offset in offsets])
        for r, batch_row in enumerate(rows):
            position = phase.source.position(At(direction, 0, batch_row, source))
            factor = broadcast(k.bind(k.load(phase.source.buffer, position)), lanes)
            for v in range(vectors):
                for gate, weight in enumerate(weights[v]):
                    at = self._at(r * vectors + v, gate)
                    k.assign(sums, at, k.read_vector(sums, at, lanes) + factor * weight, lanes)


def _store(k: KernelBuilder, target: Tensor, index: Sequence[Expr], value: Expr) -> None:
    assert target.storage is not None
    k.store(target.storage.buffer, target.storage.layout.position(index), value)
