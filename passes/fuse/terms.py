"""Patterns for arithmetic that exporters write in many ways: scaled products, squares, roots, approximate constants."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pattern import EMPTY, Bindings, Either, Op, Pattern
from graphopt.rewriting.rewrite import Match

EXACTNESS: dict[ir.DataType, float] = {
    ir.DataType.FLOAT: 2e-4,
    ir.DataType.DOUBLE: 2e-4,
    ir.DataType.FLOAT16: 1e-3,
    ir.DataType.BFLOAT16: 8e-3,
}
"""How far, relatively, a written constant such as 0.7071 may be from the number that it stands for."""


def scalar(value: ir.Value | None) -> float | None:
    """The number behind a constant of one element, or None."""
    tensor = edit.tensor(value)
    if (
        tensor is None
        or tensor.size != 1
        or tensor.dtype not in (*EXACTNESS, ir.DataType.INT64, ir.DataType.INT32)
    ):
        return None
    return float(tensor.numpy().reshape(-1)[0])


def exactness(value: ir.Value | None) -> float:
    """The relative tolerance for a constant of the dtype of ``value``."""
    return EXACTNESS.get(value.dtype, 0.0) if value is not None and value.dtype is not None else 0.0


@dataclass(frozen=True, eq=False)
class Near(Pattern):
    """A constant of one element that stands for ``number``, within the exactness of its dtype."""

    number: float

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        found = scalar(value)
        if found is not None and math.isclose(found, self.number, rel_tol=exactness(value)):
            yield bound


@dataclass(frozen=True, eq=False)
class Scalar(Pattern):
    """Any constant of one element, bound to ``name``."""

    name: str

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        found = bound.with_value(self.name, value) if scalar(value) is not None else None
        if found is not None:
            yield found


@dataclass(frozen=True)
class Factoring:
    """One way to read a value: the product of ``leaves`` and ``coefficient``, computed by ``nodes``."""

    leaves: tuple[ir.Value, ...]
    coefficient: float
    tolerance: float
    nodes: tuple[ir.Node, ...]

    def times(self, other: "Factoring", by: ir.Node) -> "Factoring":
        return Factoring(
            self.leaves + other.leaves,
            self.coefficient * other.coefficient,
            self.tolerance + other.tolerance,
            (by, *self.nodes, *other.nodes),
        )


def _factorings(value: ir.Value, limit: int) -> Iterator[Factoring]:
    """Every reading of ``value`` with at most ``limit`` leaves."""
    number = scalar(value)
    if number is not None:
        yield Factoring((), number, exactness(value), ())
    elif limit > 0:
        yield Factoring((value,), 1.0, 0.0, ())
        producer = value.producer()
        if producer is not None:
            yield from _factorings_of_node(producer, limit)


def _factorings_of_node(node: ir.Node, limit: int) -> Iterator[Factoring]:
    left, right = (*node.inputs, None, None)[:2]
    if node.domain != "" or left is None or right is None:
        return
    if node.op_type == "Mul":
        for one in _factorings(left, limit if scalar(right) is not None else limit - 1):
            for other in _factorings(right, limit - len(one.leaves)):
                yield one.times(other, node)
    elif node.op_type == "Div" and (divisor := scalar(right)):
        inverse = Factoring((), 1 / divisor, exactness(right), ())
        for one in _factorings(left, limit):
            yield one.times(inverse, node)


class Product(Op):
    """The product of ``factors`` and the number ``coefficient``, as any tree of Mul and of Div by constants.

    With ``coefficient=None`` any number will do; ``coefficient_between`` reads it afterwards.
    """

    def __init__(self, *factors: Any, coefficient: float | None = 1.0) -> None:
        super().__init__(("Mul", "Div"), *factors)
        self.coefficient = coefficient

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        if value is None:
            return
        producer = value.producer()
        if producer is not None and value.index() == 0:
            yield from self.match_node(producer, bound)
        if len(self.inputs) == 1 and self.coefficient in (None, 1.0):
            yield from self.inputs[0].match(value, bound)

    def match_node(self, node: ir.Node, bound: Bindings = EMPTY) -> Iterator[Bindings]:
        found = bound.with_node(self, node)
        if found is None:
            return
        for reading in _factorings_of_node(node, len(self.inputs)):
            if len(reading.leaves) == len(self.inputs) and self._has_coefficient(reading):
                inner = found
                for each in reading.nodes[1:]:
                    inner = Bindings(inner.values, {**inner.nodes, Op(each.op_type): each})
                for order in itertools.permutations(reading.leaves):
                    yield from _match_in_order(self.inputs, order, inner)

    def _has_coefficient(self, reading: Factoring) -> bool:
        if self.coefficient is None:
            return True
        return math.isclose(reading.coefficient, self.coefficient, rel_tol=reading.tolerance + 1e-7)


def _match_in_order(
    patterns: tuple[Pattern, ...], values: tuple[ir.Value, ...], bound: Bindings
) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for found in patterns[0].match(values[0], bound):
        yield from _match_in_order(patterns[1:], values[1:], found)


def coefficient_between(value: ir.Value, source: ir.Value) -> float:
    """The number by which ``source`` is multiplied to give ``value``; 1 if nothing but ``source`` itself is there."""
    for reading in _factorings(value, 1):
        if reading.leaves == (source,):
            return reading.coefficient
    raise ValueError(f"{value.name} is not a multiple of {source.name}")


def square(base: Any) -> Pattern:
    """``base`` times itself; ``base`` must be a name or an ``Op``, so that both factors are the same value."""
    return Either(Op("Pow", base, Near(2)), Op("Mul", base, base))


def cube(base: str) -> Pattern:
    """``base`` to the third power."""
    return Either(
        Op("Pow", base, Near(3)), Product(base, base, base), Op("Mul", base, Op("Pow", base, Near(2)))
    )


def root(radicand: Any) -> Pattern:
    """The square root."""
    return Either(Op("Sqrt", radicand), Op("Pow", radicand, Near(0.5)))


def inverse_root(radicand: Any) -> Pattern:
    """One over the square root."""
    return Either(
        Op("Reciprocal", root(radicand)),
        Op("Div", Near(1), root(radicand)),
        Op("Pow", radicand, Near(-0.5)),
    )


def over_root(dividend: Any, radicand: Any) -> tuple[Op, ...]:
    """``dividend`` over the square root of ``radicand``, as the patterns that a rule can start from."""
    return Op("Div", dividend, root(radicand)), Op("Mul", dividend, inverse_root(radicand))


def keeps_rank(match: Match, name: str = "x") -> bool:
    """Whether the result surely has as many dimensions as the input: no constant adds leading ones."""
    source, result = match[name].shape, match.root.outputs[0].shape
    return source is not None and result is not None and len(source) == len(result)
