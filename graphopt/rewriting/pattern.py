"""Patterns over ONNX graphs, as data: what a group of nodes must look like for a rule to apply.

``Op("Mul", "x", Op("Sigmoid", "x"))`` reads as it is written: a string binds a value (the same string, the same
value), a number is a constant with that value in every element, None is an absent optional input.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute

COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor"})


class Bindings:
    """What a match has bound so far: values by name and nodes by pattern. Immutable; ``with_*`` return a copy."""

    __slots__ = ("nodes", "values")

    def __init__(self, values: "Mapping[str, ir.Value | None]", nodes: "Mapping[Op, ir.Node]") -> None:
        self.values = values
        self.nodes = nodes

    def with_value(self, name: str, value: ir.Value | None) -> "Bindings | None":
        """None if ``name`` is bound to another value already."""
        if name in self.values:
            return self if self.values[name] is value else None
        return Bindings({**self.values, name: value}, self.nodes)

    def with_node(self, pattern: "Op", node: ir.Node) -> "Bindings | None":
        """None if ``pattern`` is bound to another node already."""
        if pattern in self.nodes:
            return self if self.nodes[pattern] is node else None
        return Bindings(self.values, {**self.nodes, pattern: node})


EMPTY = Bindings({}, {})


class Pattern:
    """Something that a value may match, perhaps in several ways."""

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        """Yields the bindings of every way in which ``value`` matches."""
        raise NotImplementedError

    def depth(self) -> int:
        """The number of nodes on the longest path of the pattern."""
        return 0


@dataclass(frozen=True, eq=False)
class Var(Pattern):
    """Any value, bound to ``name``. ``optional`` also accepts an absent input, bound to None."""

    name: str
    optional: bool = False
    where: Callable[[ir.Value], bool] | None = None

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        if value is None and not self.optional:
            return
        if value is not None and self.where is not None and not self.where(value):
            return
        found = bound.with_value(self.name, value)
        if found is not None:
            yield found


@dataclass(frozen=True, eq=False)
class Const(Pattern):
    """A constant, bound to ``name``, whose data satisfies ``where``; ``optional`` also accepts an absent input.

    ``max_size`` keeps ``where`` from reading large weights.
    """

    name: str
    where: Callable[[np.ndarray], bool] | None = None
    optional: bool = False
    max_size: int | None = None

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        accepted = self.optional if value is None else self._accepts(edit.tensor(value))
        found = bound.with_value(self.name, value) if accepted else None
        if found is not None:
            yield found

    def _accepts(self, tensor: ir.TensorProtocol | None) -> bool:
        if tensor is None or (self.max_size is not None and tensor.size > self.max_size):
            return False
        return self.where is None or bool(self.where(tensor.numpy()))


@dataclass(frozen=True, eq=False)
class Number(Pattern):
    """A constant of at most ``max_size`` elements, all equal to ``value`` as rounded to the constant's dtype."""

    value: float
    max_size: int = 4096

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        tensor = edit.tensor(value)
        if tensor is None or not 0 < tensor.size <= self.max_size or tensor.dtype == ir.DataType.STRING:
            return
        array = tensor.numpy()
        if np.all(array == np.asarray(self.value).astype(array.dtype)):
            yield bound


@dataclass(frozen=True, eq=False)
class Absent(Pattern):
    """An optional input that is not given."""

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        if value is None:
            yield bound


@dataclass(frozen=True, eq=False)
class Either(Pattern):
    """Any of several patterns, tried in order."""

    options: tuple[Pattern, ...]

    def __init__(self, *options: "Pattern | str | float | None") -> None:
        object.__setattr__(self, "options", tuple(_pattern(option) for option in options))

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        for option in self.options:
            yield from option.match(value, bound)

    def depth(self) -> int:
        return max(option.depth() for option in self.options)


class Op(Pattern):
    """An output of a node with one of the given operator types.

    ``inputs`` are patterns in order; inputs beyond them must be absent unless the last one is ``...``. ``attributes``
    maps names to a required value or a predicate over the value, where a missing attribute has its schema's default.
    Below the root, the outputs of the node may be used only within the match, unless ``shared``. The same ``Op``
    object in two places must match the same node. ``output`` is the index of the output that is matched.
    """

    def __init__(
        self,
        op_type: str | Sequence[str],
        *inputs: Any,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
        shared: bool = False,
        output: int = 0,
        where: Callable[[ir.Node], bool] | None = None,
    ) -> None:
        self.op_types = (op_type,) if isinstance(op_type, str) else tuple(op_type)
        self.open = bool(inputs) and inputs[-1] is ...
        self.inputs = tuple(_pattern(each) for each in (inputs[:-1] if self.open else inputs))
        self.domain = domain
        self.attributes = dict(attributes or {})
        self.shared = shared
        self.output = output
        self.where = where

    def match(self, value: ir.Value | None, bound: Bindings) -> Iterator[Bindings]:
        node = None if value is None else value.producer()
        if value is not None and node is not None and value.index() == self.output:
            yield from self.match_node(node, bound)

    def match_node(self, node: ir.Node, bound: Bindings = EMPTY) -> Iterator[Bindings]:
        """Yields the bindings of every way in which ``node`` matches, apart from the uses of inner outputs."""
        found = bound.with_node(self, node) if self._accepts(node) else None
        if found is None:
            return
        for inputs in self._orders(node):
            yield from _match_all(self.inputs, inputs, found)

    def depth(self) -> int:
        return 1 + max((each.depth() for each in self.inputs), default=0)

    def _accepts(self, node: ir.Node) -> bool:
        return (
            node.op_type in self.op_types
            and node.domain == self.domain
            and all(_holds(wanted, attribute(node, name)) for name, wanted in self.attributes.items())
            and (self.where is None or self.where(node))
        )

    def _orders(self, node: ir.Node) -> Iterator[tuple[ir.Value | None, ...]]:
        given = tuple(node.inputs)
        wanted = len(self.inputs)
        if any(value is not None for value in given[wanted:]) and not self.open:
            return
        given = given[:wanted] + (None,) * (wanted - len(given))
        yield given
        if wanted == 2 and node.op_type in COMMUTATIVE and node.domain == "":
            yield given[::-1]


def _match_all(
    patterns: Sequence[Pattern], values: Sequence[ir.Value | None], bound: Bindings
) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for found in patterns[0].match(values[0], bound):
        yield from _match_all(patterns[1:], values[1:], found)


def _pattern(spec: Any) -> Pattern:
    if isinstance(spec, Pattern):
        return spec
    if spec is None:
        return Absent()
    return Var(spec) if isinstance(spec, str) else Number(spec)


def _holds(wanted: Any, actual: Any) -> bool:
    if callable(wanted):
        return bool(wanted(actual))
    return bool(actual == (tuple(wanted) if isinstance(wanted, list) else wanted))
