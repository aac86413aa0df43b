"""Where a difference comes from: bisection over the nodes of a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.accuracy.comparison import describe
from graphopt.accuracy.verify import Runner, Verdict, verify
from graphopt.arrays import Feeds

# Compiles a model; the result takes feeds and gives outputs by name.
Compiler = Callable[[ir.Model], Runner]


@dataclass(frozen=True)
class NodeDifference:
    """The first node, in execution order, after which the results differ."""

    node: str
    op: str
    verdict: Verdict

    def __str__(self) -> str:
        failed = next(output for output in self.verdict.outputs if not output.passed)
        return f"first difference at node {self.node!r} ({self.op}): {describe(failed)}"


def first_difference(
    model: ir.Model, build: Compiler, feeds: Feeds, allowed: float = 0.0
) -> NodeDifference | None:
    """Name the first node of the main graph whose result ``build`` gets wrong; None if all results agree.

    Takes about log2(nodes) steps. Each cuts the model after some node, exposes the values that live across
    the cut and compares them with ONNX Runtime, so what ``build`` fuses before the cut stays fused. Floats may differ by
    ``allowed`` at least.
    """
    nodes = list(model.graph)
    verdict = _judge(model, build, feeds, allowed)
    if not _differs(verdict):
        return None
    agrees, differs = 0, len(nodes)
    while differs - agrees > 1:
        middle = (agrees + differs) // 2
        found = _judge(cut(model, middle), build, feeds, allowed)
        if _differs(found):
            differs, verdict = middle, found
        else:
            agrees = middle
    node = nodes[differs - 1]
    return NodeDifference(node.name or "", node.op_type, verdict)


def cut(model: ir.Model, count: int) -> ir.Model:
    """A copy of the first ``count`` nodes; its outputs are what other nodes, or the caller, would read."""
    copy = model.clone()
    graph = copy.graph
    nodes = list(graph)
    wanted = {*graph.outputs, *_reads(nodes[count:])}
    outputs = [value for node in nodes[:count] for value in node.outputs if value in wanted]
    graph.outputs.clear()
    graph.remove(nodes[count:], safe=False)
    graph.outputs.extend(outputs)
    return copy


def _reads(nodes: Iterable[ir.Node]) -> Iterator[ir.Value | None]:
    """Everything that nodes read, in their subgraphs too."""
    for node in nodes:
        yield from node.inputs
        for attribute in node.attributes.values():
            for graph in _subgraphs(attribute):
                yield from graph.outputs
                yield from _reads(graph)


def _subgraphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []


def _judge(model: ir.Model, build: Compiler, feeds: Feeds, allowed: float) -> Verdict:
    return verify(model, build(model), [feeds], allowed)


def _differs(verdict: Verdict) -> bool:
    return verdict.verified and not verdict.passed
