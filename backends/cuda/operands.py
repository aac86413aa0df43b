"""How an operand comes into shared memory, step by step along the depth: copied while the threads go on where it is read as it lies,
through their registers where something is computed of it first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import ir, tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, dtype_of
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.extents import inside
from graphopt.backends.cuda.instructions import COPIES
from graphopt.backends.cuda.lanes import is_arithmetic
from graphopt.backends.cuda.tiles import PADDING

Element = Callable[[KernelBuilder, Expr, Expr, Expr], Expr]
"""An operand's element: of a product of the batch, at a row or column, at a depth."""


@dataclass(frozen=True)
class Steps:
    """What a team of `threads` goes through: `count` steps of `depth` each from `first` on, of `extent` depths that there are, of which
    `stages` lie in shared memory."""

    count: int
    depth: int
    first: Expr
    extent: int
    threads: int
    stages: int


@dataclass(frozen=True)
class Part:
    """`size` rows or columns of an operand from `start`, of `extent` that it has, of a product of the batch."""

    element: Element
    batch: Expr
    start: Expr
    size: int
    extent: int
    along_depth: bool
    """Whether neighbours in memory are neighbours in depth."""


class StagedOperand(ABC):
    """An operand in shared memory: of each step rows of one depth each, with zeros beyond its ends."""

    ahead = 1
    """Steps from the one that is multiplied to the one that is asked for."""

    def __init__(self, k: DeviceBuilder, part: Part, steps: Steps, thread: Expr, dtype: str) -> None:
        self.k, self.part, self.steps, self.thread, self.dtype = k, part, steps, thread, dtype
        self.width = part.size + PADDING
        self.memory = k.shared(steps.stages * steps.depth * self.width, dtype)
        self.count = part.size * steps.depth // steps.threads
        self.run = 1

    @abstractmethod
    def ask(self, step: Expr) -> None:
        """Ask for a step."""

    @abstractmethod
    def keep(self, step: Expr) -> None:
        """Put a step that was asked for where the team finds it after the next barrier."""

    def read(self, stage: Expr, depth: Expr, place: Expr) -> Expr:
        """An element in shared memory."""
        return self.memory[self._position(stage, depth, place)]

    def stage(self, step: Expr) -> Expr:
        """Where in shared memory a step lies."""
        return self.k.bind(tirx.op.truncmod(step, self.steps.stages))

    def _position(self, stage: Expr, depth: Expr, place: Expr) -> Expr:
        return stage * (self.steps.depth * self.width) + depth * self.width + place

    def _own(self, load: Expr) -> Expr:
        """The first position, in the order of the operand's memory, of a run of the thread."""
        return (load * self.steps.threads + self.thread) * self.run

    def _place(self, position: Expr) -> tuple[Expr, Expr]:
        """The row or column, and the depth, of a position."""
        k, inner = self.k, self.steps.depth if self.part.along_depth else self.part.size
        outer, at = k.bind(tirx.op.floordiv(position, inner)), k.bind(tirx.op.floormod(position, inner))
        return (outer, at) if self.part.along_depth else (at, outer)

    def _element(self, position: Expr, step: Expr) -> Expr:
        """The element at a position of a step; zero beyond the ends."""
        k, part, steps = self.k, self.part, self.steps
        place, at = self._place(position)
        where, deep = k.bind(part.start + place), k.bind(steps.first + step * steps.depth + at)
        exists = inside([(where, part.extent, part.size), (deep, steps.extent, steps.depth * steps.count)])
        if exists is None:
            return part.element(k, part.batch, where, deep)
        return k.guard(exists, lambda: part.element(k, part.batch, where, deep), const(0, self.dtype))

    def _longest_run(self, bring: Callable[[Expr], Any]) -> int:
        """Neighbours that a thread can bring together."""
        return self.k.widest(self.part.size * self.steps.depth, bring, self.steps.threads)


class Copied(StagedOperand):
    """Copies that are under way while steps before are multiplied. Neighbours in depth are copied one by one, as they are none in
    shared memory."""

    def __init__(self, k: DeviceBuilder, part: Part, steps: Steps, thread: Expr, dtype: str) -> None:
        super().__init__(k, part, steps, thread, dtype)
        self.ahead = steps.stages - 1
        if not part.along_depth:
            step = k.variable("step", steps.count)
            self.run = self._longest_run(lambda position: self._element(position, step))

    def ask(self, step: Expr) -> None:
        k, stage = self.k, self.stage(step)
        with k.loop(self.count // self.run, "unroll", "load") as load:
            first = k.bind(self._own(load))
            source = source_of(self._element(first, step))
            assert source is not None
            place, at = self._place(first)
            target = tirx.op.address_of(self.memory[self._position(stage, at, place)])
            k.invoke(COPIES[self.run * np.dtype(self.dtype).itemsize], target, *source)

    def keep(self, step: Expr) -> None:
        """It goes there by itself."""


class Fetched(StagedOperand):
    """Registers, from the one step to the next."""

    def __init__(self, k: DeviceBuilder, part: Part, steps: Steps, thread: Expr, dtype: str) -> None:
        super().__init__(k, part, steps, thread, dtype)
        self.registers = k.local(self.count, dtype)
        step = k.variable("step", steps.count)
        self.run = self._longest_run(
            lambda position: k.assign(self.registers, 0, self._element(position, step))
        )

    def ask(self, step: Expr) -> None:
        k = self.k
        with k.loop(self.count // self.run, "unroll", "load") as load:
            first = k.bind(self._own(load))
            with k.lanes(self.run) as lane:
                k.assign(self.registers, load * self.run + lane, self._element(first + lane, step))

    def keep(self, step: Expr) -> None:
        k, stage = self.k, self.stage(step)
        with k.loop(self.count, "unroll", "load") as load:
            run, lane = tirx.op.floordiv(load, self.run), tirx.op.floormod(load, self.run)
            place, at = self._place(self._own(run) + lane)
            k.assign(self.memory, self._position(stage, at, place), self.registers[load])


def stage_operand(k: DeviceBuilder, part: Part, steps: Steps, thread: Expr, dtype: str) -> StagedOperand:
    """The operand, copied where that is possible."""
    place, depth = k.variable("place", part.extent), k.variable("depth", steps.extent)
    with k.aside():
        source = source_of(part.element(k, part.batch, place, depth))
    return (Fetched if source is None else Copied)(k, part, steps, thread, dtype)


def source_of(value: Expr) -> tuple[Expr, Expr] | None:
    """Where an element lies that is nothing but read, and whether it exists where it is zero otherwise; None where something is computed
    of it, or it is smaller than what can be copied."""
    conditions = []
    while isinstance(value, ir.Call) and value.op.name == "prim.if_then_else":
        condition, value, otherwise = value.args
        if not isinstance(otherwise, tirx.IntImm | tirx.FloatImm) or otherwise.value != 0:
            return None
        conditions.append(condition)
    if not isinstance(value, ir.TensorLoad) or np.dtype(dtype_of(value)).itemsize not in COPIES:
        return None
    if conditions and not all(is_arithmetic(index) for index in value.indices):
        return None
    exists = tirx.Cast("int32", tirx.op.all(*conditions)) if conditions else const(1, "int32")
    return tirx.op.address_of(value), exists
