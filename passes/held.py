"""Which values a model in half precision holds rounded: those of which nobody wants more digits.

Products and convolutions multiply what is rounded; residual additions add it, and operators that move elements pass it on. A value all of whose
readers are such, and that reaches a product, is rounded where it is computed, so that only halves of it are ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.movers import moved_inputs, moves_elements

RESIDUALS = ("Add", "Sum")

Multiplies = Callable[[ir.Node, int], bool]
"""Whether a node multiplies its input of that number, and may have it rounded."""


@dataclass
class Held:
    """The values of the main graph that are held rounded, and the operators that move such.

    `movers` are operators that may move halves, `too_large` names of values that halves cannot hold.
    """

    graph: ir.Graph
    multiplies: Multiplies
    movers: Collection[str]
    too_large: Collection[str] = ()
    values: set[ir.Value] = field(init=False)

    def __post_init__(self) -> None:
        self.values = self._tolerated()
        self.values &= self._wanted()

    def in_order(self) -> list[ir.Value]:
        """The held values as the graph computes them."""
        return [value for value in _computed(self.graph) if value in self.values]

    def moves(self, node: ir.Node) -> bool:
        """Whether a node moves halves: some of its results are held, and then all are."""
        return self._is_mover(node) and bool(node.outputs) and all(y in self.values for y in node.outputs)

    def takes(self, user: ir.Node, i: int) -> bool:
        """Whether the rounded value will do for the input `i` of a node."""
        if self.multiplies(user, i) or self._is_residual(user):
            return True
        return i in moved_inputs(user) and self.moves(user)

    def _tolerated(self) -> set[ir.Value]:
        """The largest set of values whose readers all take them rounded, given that the set is held."""
        self.values = {value for value in _computed(self.graph) if self._could_be_held(value)}
        while strict := [v for v in self.values if not all(self.takes(user, i) for user, i in v.uses())]:
            self.values.difference_update(strict)
        return self.values

    def _could_be_held(self, value: ir.Value) -> bool:
        return (
            value.dtype in (ir.DataType.FLOAT, None)
            and not value.is_graph_output()
            and value.name not in self.too_large
        )

    def _wanted(self) -> set[ir.Value]:
        """What products multiply, and all that is moved together with it."""
        wanted: set[ir.Value] = set()
        queue = [v for v in self.values if any(self.multiplies(user, i) for user, i in v.uses())]
        while queue:
            value = queue.pop()
            if value not in wanted:
                wanted.add(value)
                queue += [other for other in self._moved_with(value) if other in self.values]
        return wanted

    def _moved_with(self, value: ir.Value) -> Iterator[ir.Value]:
        producer = value.producer()
        movers = [user for user, i in value.uses() if i in moved_inputs(user)]
        for node in movers if producer is None else [producer, *movers]:
            if self.moves(node):
                yield from node.outputs
                yield from (x for i in moved_inputs(node) if (x := node.inputs[i]) is not None)

    def _is_mover(self, node: ir.Node) -> bool:
        return (
            moves_elements(node, self.movers)
            and node.graph is self.graph
            and all(
                x is not None and edit.tensor(x) is None for x in (node.inputs[i] for i in moved_inputs(node))
            )
        )

    def _is_residual(self, node: ir.Node) -> bool:
        return not node.domain and node.op_type in RESIDUALS and node.graph is self.graph


def _computed(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values of a graph but constants."""
    yield from (value for value in graph.inputs if edit.tensor(value) is None)
    for node in graph:
        if node.op_type != "Constant":
            yield from node.outputs
