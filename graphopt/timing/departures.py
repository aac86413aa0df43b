"""Where backends depart from the reference: the tensors between the nodes of a model, compared one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.comparison import MISSING, Comparison
from graphopt.timing.bench import Benchmark, Measurement


@dataclass(frozen=True)
class Departure:
    """One backend: its differences in execution order, the tensors that it has merged with others, or why there are none."""

    differences: Sequence[Comparison]
    hidden: Sequence[str] = ()
    error: str = ""

    @property
    def first(self) -> Comparison | None:
        """The first tensor that differs by more than its tolerance."""
        return next((each for each in self.differences if not each.passed), None)

    @property
    def largest(self) -> Comparison | None:
        """The tensor that differs most, relative to its largest element."""
        return max(self.differences, key=lambda each: each.max_rel_err, default=None)


@dataclass(frozen=True)
class Departures:
    """Every backend's, and the node that computes each tensor."""

    model: str
    nodes: Mapping[str, str]
    backends: Mapping[str, Departure]

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {name: self._backend_json(each) for name, each in self.backends.items()}

    def _backend_json(self, departure: Departure) -> dict[str, Any]:
        if departure.error:
            return {"error": departure.error}
        tensors = [
            {
                "tensor": each.name,
                "node": self.nodes.get(each.name, ""),
                "max_abs_err": each.max_abs_err,
                "max_rel_err": each.max_rel_err,
                "within_tolerance": each.passed,
            }
            for each in departure.differences
        ]
        first = None if departure.first is None else departure.first.name
        return {"first": first, "tensors": tensors, "hidden": list(departure.hidden)}


def expose_tensors(model: ir.Model) -> ir.Model:
    """A copy whose outputs are all tensors that its nodes compute, in execution order.

    Tensors of unknown type, and those within subgraphs, are left out. What a compiler fuses ends at each of them.
    """
    copy = model.clone()
    graph = copy.graph
    wanted = set(graph.outputs)
    computed = [value for node in graph for value in node.outputs if value in wanted or _is_tensor(value)]
    passed_through = [value for value in graph.outputs if value.producer() is None]
    graph.outputs.clear()
    graph.outputs.extend([*computed, *passed_through])
    return copy


def departures(name: str, model: ir.Model, measured: Benchmark) -> Departures:
    """What a benchmark of the exposed model says of its backends."""
    nodes = {
        value.name or "": f"{node.name or '(no name)'} ({node.op_type})"
        for node in model.graph
        for value in node.outputs
    }
    backends = {label: _departure(one) for label, one in measured.backends.items()}
    return Departures(name, nodes, backends)


def _departure(measured: Measurement) -> Departure:
    shown = [each for each in measured.comparisons if each.reason != MISSING]
    hidden = [each.name for each in measured.comparisons if each.reason == MISSING]
    return Departure(shown, hidden, measured.error)


def _is_tensor(value: ir.Value) -> bool:
    return bool(value.name) and value.shape is not None and isinstance(value.type, ir.TensorType)
