"""Neighbouring elements, the lanes of a thread: what a kernel says of one is written out for each, and those that lie next to each
other in memory are read and written together.

A body is built once, with a variable for the lane. Every statement that depends on it becomes one for each lane; loops and
conditions around them must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import ir, sym, tirx
from tvm_ffi import structural_mutate, structural_walk

from graphopt.backends.codegen.builder import INDEX, Expr, Local, dtype_of
from graphopt.backends.layout import row_major_strides


class Unsuited(Exception):
    """A loop or a condition differs between lanes."""


class LaneLocal(Local):
    """Scratch memory of every lane: elements of lanes lie next to each other."""

    def __init__(self, storage: Any, dtype: str, lane: Any, width: int) -> None:
        super().__init__(storage, dtype)
        self.lane, self.width = lane, width

    def place(self, index: Expr, lane: Expr | None = None) -> Expr:
        """Where an element of a lane lies, that of the body being built unless one is given."""
        return index * self.width + (self.lane if lane is None else lane)

    def __getitem__(self, index: Expr) -> Expr:
        return tirx.BufferLoad(self.storage, [self.place(index)])


@dataclass(frozen=True)
class Write:
    """An element of every lane on its own, which `is_certain` if it stands under no condition and in no loop."""

    buffer: Any
    offset: Expr
    is_certain: bool


class Lanes:
    """What is known of a body while it is built. `facts` are ranges of variables around it, `names` what integers stand for, `depth` the
    number of blocks that it stands in."""

    def __init__(
        self, width: int, facts: Iterable[tuple[Any, int]], names: dict[Any, Expr], depth: int
    ) -> None:
        self.depth = depth
        self.width, self.lane = width, tirx.Var("lane", INDEX)
        self.names = names
        self.is_plain = False
        """Whether statements are being collected that are written out for each lane together."""
        self.conditions: list[Expr | None] = []
        """Of guards around what is being built; None for those that differ between lanes."""
        self.zero_elsewhere: Expr | None = None
        """The last value read that is zero where the conditions do not hold."""
        self.whole: list[Any] = []
        """Buffers that are read or written in whole accesses."""
        self.scattered: list[tuple[Any, Expr]] = []
        """Reads that are not, with their offsets."""
        self.whole_writes = 0
        self.scattered_writes: list[Write] = []
        self._flat: list[tuple[list[tuple[Any, int]], Expr]] = []
        self._own: dict[Any, list[Any]] = {self.lane: [tirx.const(i, INDEX) for i in range(width)]}
        self._meaning: dict[Any, Expr] = {}
        self._analyzer = sym.Analyzer()
        for variable, extent in [(self.lane, width), *facts]:
            self.know(variable, extent)

    def know(self, variable: Any, extent: int) -> None:
        """A variable is in [0, extent)."""
        self._analyzer.bind(variable, ir.Range(0, max(extent, 1)))

    def know_flat(self, index: Sequence[Expr], shape: Sequence[int], position: Expr) -> None:
        """An index is that of a flat position, which is not seen of what its parts are after simplification."""
        strides = zip(index, row_major_strides(shape), strict=True)
        parts = [(i, stride) for i, stride in strides if isinstance(i, tirx.Var)]
        if len(parts) > 1:
            self._flat.append((parts, position))

    def varies(self, node: Any) -> bool:
        """Whether an expression or statement differs between lanes."""
        return not isinstance(node, int | float) and any(
            v in self._own for v in tirx.analysis.undefined_vars(node, [])
        )

    def copies(self, statement: Any) -> list[Any]:
        """A statement for each lane."""
        if not isinstance(statement, tirx.Bind):
            return [self.of_lane(statement, i) for i in range(self.width)]
        variable, value = statement.var, statement.value
        own = self.note(variable, value)
        return [tirx.Bind(name, self.of_lane(value, i)) for i, name in enumerate(own)]

    def note(self, variable: Any, value: Expr) -> list[Any]:
        """A name stands for a value that differs between lanes; gives those of the lanes."""
        if dtype_of(variable) == INDEX and is_arithmetic(value):
            self._meaning[variable] = value
        dtype = dtype_of(variable)
        self._own[variable] = [tirx.Var(f"{variable.name}_{i}", dtype) for i in range(self.width)]
        return self._own[variable]

    def of_lane(self, node: Any, lane: int) -> Any:
        """An expression or statement for one of the lanes."""
        own = self._own
        return structural_mutate(node, [(tirx.Var, lambda v, mutator: own[v][lane] if v in own else v)])

    def inlined(self, value: Expr) -> Expr:
        """An integer with what the lane decides in place of its names, and divisions that can be simplified."""
        meaning = self._meaning
        callbacks = [
            (tirx.Var, lambda v, mutator: meaning.get(v, v)),
            (tirx.Div, lambda v, mutator: self._divided(v, mutator, tirx.op.floordiv)),
            (tirx.Mod, lambda v, mutator: self._divided(v, mutator, tirx.op.floormod)),
        ]
        return structural_mutate(value, callbacks)

    def _divided(self, value: Any, mutator: Any, floored: Callable[[Expr, Expr], Expr]) -> Expr:
        """A division or its rest; rounded down where that is the same, as nothing is negative."""
        a, b = mutator.mutate(value.a), mutator.mutate(value.b)
        if isinstance(b, tirx.IntImm) and int(b) > 0:
            least = self._analyzer.const_int_bound(self._spelled_out(a)).min_value
            if least >= 0:
                return floored(a, b)
        return type(value)(a, b)

    def simplified(self, value: Expr) -> Expr:
        """A value that is to have a name; of integers what is left when it is known that the lane is one of few."""
        if dtype_of(value) != INDEX or not self.varies(value) or not is_arithmetic(value):
            return value
        return self._analyzer.simplify(self.inlined(value))

    def uniform(self, condition: Expr) -> Expr | None:
        """A condition as one that is the same for all lanes; None if it is not."""
        if not self.varies(condition):
            return condition
        found = self._analyzer.simplify(self.inlined(condition))
        return None if self.varies(found) else found

    def first(self, offset: Expr) -> tuple[Expr, int] | None:
        """Where the first lane finds its element, and how far on each next one does; None where there is no such number."""
        if not self.varies(offset):
            return offset, 0
        found = self._linear(self.inlined(self._flattened(offset)), self.lane)
        return None if found is None or self.varies(found[0]) else found

    def step(self, offset: Expr, variable: Any) -> int | None:
        """How far on an offset is, in the first lane, for each next value of a variable; None where there is no such number."""
        found = self._linear(self._spelled_out(self.of_lane(self.inlined(offset), 0)), variable)
        return None if found is None else found[1]

    def linear(self, offset: Expr, variables: Sequence[Any]) -> tuple[tuple[int, ...], Expr] | None:
        """The coefficients of variables in an offset, and the rest of it; None where it is no such sum."""
        spelled = self._spelled_out(self.inlined(self._flattened(offset)))
        found = sym.detect_linear_equation(self._analyzer.simplify(spelled), list(variables))
        if len(found) != len(variables) + 1 or not all(isinstance(each, tirx.IntImm) for each in found[:-1]):
            return None
        return tuple(map(int, found[:-1])), found[-1]

    def difference(self, a: Expr, b: Expr) -> int | None:
        """How far apart two offsets are; None where that is no number."""
        rest = self._analyzer.simplify(a - b)
        return int(rest) if isinstance(rest, tirx.IntImm) else None

    def note_scattered(self, buffer: Any, offset: Expr, depth: int) -> None:
        """Each lane writes its own element of a buffer."""
        certain = depth <= self.depth and not self.is_plain
        self.scattered_writes.append(Write(buffer, offset, certain))

    def _linear(self, offset: Expr, variable: Any) -> tuple[Expr, int] | None:
        """An offset where a variable is 0, and its coefficient."""
        coefficients = sym.detect_linear_equation(self._analyzer.simplify(offset), [variable])
        if len(coefficients) != 2 or not isinstance(coefficients[0], tirx.IntImm):
            return None
        return coefficients[1], int(coefficients[0])

    def _flattened(self, offset: Expr) -> Expr:
        """The same offset, with a flat position in place of the parts of an index that only occur as such."""
        for parts, position in self._flat:
            found = sym.detect_linear_equation(self._analyzer.simplify(offset), [i for i, _ in parts])
            if len(found) <= len(parts) or not all(isinstance(each, tirx.IntImm) for each in found[:-1]):
                continue
            factor = int(found[len(parts) - 1]) // parts[-1][1]
            if factor and all(
                int(c) == factor * stride for c, (_, stride) in zip(found[:-1], parts, strict=True)
            ):
                offset = position * factor + found[-1]
        return offset

    def can_ask(self, offset: Expr) -> bool:
        """Whether one access can read what lies at an offset: conditions around it hold for all lanes or none, and where there are any,
        nothing is read to know the offset."""
        known = all(condition is not None for condition in self.conditions)
        return known and (not self.conditions or is_arithmetic(offset))

    def is_multiple(self, offset: Expr, number: int) -> bool:
        """Whether an offset that is the same for all lanes is known to be a multiple."""
        return self._divides(offset, number) or self._divides(self._spelled_out(offset), number)

    def _spelled_out(self, value: Expr) -> Expr:
        """An integer without names."""
        names = self.names
        while any(v in names for v in tirx.analysis.undefined_vars(value, [])):
            value = structural_mutate(value, [(tirx.Var, lambda v, mutator: names.get(v, v))])
        return value

    def _divides(self, offset: Expr, number: int) -> bool:
        rest = self._analyzer.simplify(tirx.op.floormod(offset, number))
        return isinstance(rest, tirx.IntImm) and int(rest) == 0


def is_arithmetic(value: Expr) -> bool:
    """Whether a value comes from names and numbers alone."""
    found: list[Any] = []
    structural_walk(value, [((ir.TensorLoad, ir.Call), found.append)])
    return not found
