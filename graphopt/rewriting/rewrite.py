"""Rules as data, and the worklist that applies them until nothing matches any more.

A rule is a pattern and a function that turns a match into the values that replace the outputs of the matched root.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.rewriting.pattern import Bindings, Op
from graphopt.rewriting.pipeline import Outcome


@dataclass(frozen=True)
class Refuse:
    """Why a rule whose pattern matches cannot be applied; counted and shown to the user."""

    reason: str


Replacement = ir.Value | Sequence[ir.Value | None] | Refuse | None


@dataclass(frozen=True)
class Rule:
    """``rewrite`` returns the value that replaces the root's output, one value per output (None for an output without
    users), a ``Refuse`` with a reason, or None where the pattern turned out not to apply."""

    name: str
    pattern: Op
    rewrite: "Callable[[Match], Replacement]"


class Match:
    """What a pattern has bound, and the means to build what replaces it."""

    def __init__(self, root: ir.Node, bound: Bindings, names: edit.Names) -> None:
        self.root = root
        self.new_nodes: list[ir.Node] = []
        self.new_constants: list[ir.Value] = []
        self._bound = bound
        self._names = names

    def __getitem__(self, name: str) -> ir.Value:
        """The value bound to ``name``; KeyError if it is an absent optional input."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> ir.Value | None:
        """The value bound to ``name``, or None for an optional input that is absent."""
        return self._bound.values.get(name)

    def node(self, pattern: Op) -> ir.Node:
        """The node that ``pattern`` (an ``Op`` inside the rule's pattern) matched."""
        return self._bound.nodes[pattern]

    @property
    def nodes(self) -> list[ir.Node]:
        """All matched nodes, the root first."""
        return list(self._bound.nodes.values())

    def array(self, name: str) -> np.ndarray:
        """The data of the constant bound to ``name``; not to be written to."""
        found = edit.constant(self[name])
        assert found is not None, f"{name} is not bound to a constant"
        return found

    @property
    def opset(self) -> int:
        """The version of the standard opset at the root."""
        return self.graph.opset_imports.get("", 0)

    @property
    def graph(self) -> ir.Graph:
        """The graph that the root is in."""
        assert self.root.graph is not None
        return self.root.graph

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | np.ndarray | None],
        *,
        domain: str = "",
        outputs: int = 1,
        like: ir.Value | None = None,
        attributes_of: ir.Node | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """A new node in front of the root; gives its first output (``.producer().outputs`` has the others).

        Arrays among ``inputs`` become initializers. The attributes are those of ``attributes_of`` and those given, which
        win; None leaves one out. ``like`` is a value with the
        type and shape of the result, where it is not the final result, which inherits both from the root.
        """
        inherited = {} if attributes_of is None else dict(attributes_of.attributes)
        given = {name: value for name, value in {**inherited, **attributes}.items() if value is not None}
        node = ir.node(
            op_type, [self._value(each) for each in inputs], given, domain=domain, num_outputs=outputs
        )
        for output in node.outputs:
            output.name = self._names.fresh(f"{self.root.outputs[0].name}_{op_type.lower()}")
        if like is not None:
            node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        self.new_nodes.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray | ir.TensorProtocol, name: str = "") -> ir.Value:
        """A new initializer in the graph of the root; ``name`` is a wish."""
        value = edit.add_constant(
            self.graph, array, self._names.fresh(name or f"{self.root.outputs[0].name}_const")
        )
        self.new_constants.append(value)
        return value

    def _value(self, given: ir.Value | np.ndarray | None) -> ir.Value | None:
        return self.constant(given) if isinstance(given, np.ndarray | np.generic) else given

    def discard(self) -> None:
        """Takes back everything that was built."""
        for node in reversed(self.new_nodes):
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        for value in self.new_constants:
            edit.drop_initializer(value)


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that become one another."""


def _hand_names_on(match: Match) -> None:
    """New nodes are called like the node of their kind that is gone for them, by which users know it."""
    gone = [node for node in match.nodes if node.graph is None and node.name]
    for node in match.new_nodes:
        heirs = [old for old in gone if old.op_type == node.op_type]
        if node.op_type in PRODUCTS:
            heirs += [old for old in gone if old.op_type in PRODUCTS]
        if heirs and node.graph is not None:
            node.name = heirs[0].name
            gone.remove(heirs[0])


class _Engine:
    """One application of a list of rules to a model."""

    def __init__(self, model: ir.Model, rules: Sequence[Rule], limit: int) -> None:
        self.opset_imports = model.opset_imports
        self.names = edit.Names(model)
        self.rules = _by_operator(rules)
        self.reach = max((rule.pattern.depth() for rule in rules), default=1)
        self.budget = limit
        self.applied: Counter[str] = Counter()
        self.removed = 0
        self.refusals: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.queue: deque[ir.Node] = deque(edit.nodes(model.graph))
        self.queued = set(self.queue)

    def run(self) -> Outcome:
        while self.queue and self.budget > 0:
            node = self.queue.popleft()
            self.queued.discard(node)
            if node.graph is not None:
                self._visit(node)
        refused = Counter({key: len(where) for key, where in self.refusals.items()})
        return Outcome(bool(self.applied or self.removed), self.applied, refused)

    def _visit(self, node: ir.Node) -> None:
        if edit.is_dead(node):
            self._remove_dead([node])
            return
        for rule in self.rules.get((node.domain, node.op_type), ()):
            if self._try(rule, node):
                self.applied[rule.name] += 1
                self.budget -= 1
                return

    def _try(self, rule: Rule, node: ir.Node) -> bool:
        for bound in rule.pattern.match_node(node):
            if not _is_closed(rule.pattern, bound):
                continue
            match = Match(node, bound, self.names)
            result = rule.rewrite(match)
            if isinstance(result, Refuse):
                self.refusals[rule.name, result.reason].add(id(node))
                match.discard()
            elif result is None:
                match.discard()
            else:
                return self._apply(rule, match, (result,) if isinstance(result, ir.Value) else tuple(result))
        return False

    def _apply(self, rule: Rule, match: Match, values: tuple[ir.Value | None, ...]) -> bool:
        root = match.root
        values += (None,) * (len(root.outputs) - len(values))
        if _changes_nothing(root, match, values):
            self.refusals[rule.name, "the value is an output of the graph"].add(id(root))
            match.discard()
            return False
        touched = [value.producer() for value in root.inputs if value is not None]
        match.graph.insert_before(root, match.new_nodes)
        for node in match.new_nodes:
            self.opset_imports.setdefault(node.domain, 1)
        added = edit.replace_outputs(root, values)
        self._remove_dead([*touched, *match.new_nodes, *match.nodes])
        _hand_names_on(match)
        self._revisit([*match.new_nodes, *added])
        self._revisit(user for value in values if value is not None for user in _users(value, self.reach))
        return True

    def _remove_dead(self, candidates: Iterable[ir.Node | None]) -> None:
        """Removes dead nodes among ``candidates`` and above them; what lost a user is visited again."""
        stack = [node for node in candidates if node is not None]
        while stack:
            node = stack.pop()
            if edit.is_dead(node) and is_removable(node):
                self.removed += 1
                stack.extend(producer for value in node.inputs if value and (producer := value.producer()))
                edit.detach(node)
            elif node.graph is not None and not edit.is_dead(node):
                self._revisit([node])
                self._revisit(user for output in node.outputs for user in _users(output, self.reach))

    def _revisit(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            if node.graph is not None and node not in self.queued:
                self.queue.append(node)
                self.queued.add(node)


def apply_rules(model: ir.Model, rules: Sequence[Rule], limit: int | None = None) -> Outcome:
    """Applies ``rules`` in the main graph and all subgraphs until none applies any more.

    Earlier rules go first where several match the same root. ``limit`` bounds the number of rewrites (by default ten
    for each node and a thousand more), so that rules that undo each other come to an end.
    """
    edit.share_opsets(model)
    if limit is None:
        limit = 1000 + 10 * sum(len(graph) for graph in edit.graphs(model))
    return _Engine(model, rules, limit).run()


def is_removable(node: ir.Node) -> bool:
    """Whether a node without users may go: everything but nodes whose operator we do not know to be pure."""
    return node.domain in PURE_DOMAINS


PURE_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "graphopt"})


def _by_operator(rules: Sequence[Rule]) -> dict[tuple[str, str], list[Rule]]:
    table: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in rules:
        for op_type in rule.pattern.op_types:
            table[rule.pattern.domain, op_type].append(rule)
    return table


def _is_closed(root: Op, bound: Bindings) -> bool:
    """Whether the values inside the match are used only within it."""
    matched = set(bound.nodes.values())
    return all(
        pattern is root or pattern.shared or _is_private(node, matched)
        for pattern, node in bound.nodes.items()
    )


def _is_private(node: ir.Node, matched: set[ir.Node]) -> bool:
    return not any(
        output.is_graph_output() or any(use.node not in matched for use in output.uses())
        for output in node.outputs
    )


def _changes_nothing(root: ir.Node, match: Match, values: tuple[ir.Value | None, ...]) -> bool:
    """Whether the root is an Identity that would only be replaced by another one."""
    if match.new_nodes or root.op_type != "Identity" or values[0] is None:
        return False
    return not edit.can_replace(root.outputs[0], values[0])


def _users(value: ir.Value, reach: int) -> Iterator[ir.Node]:
    """The users of ``value``, their users, and so on, ``reach`` levels deep."""
    seen: set[ir.Node] = set()
    level = [value]
    for _ in range(reach):
        found = [use.node for each in level for use in each.uses() if use.node not in seen]
        seen.update(found)
        yield from found
        level = [output for node in found for output in node.outputs]
