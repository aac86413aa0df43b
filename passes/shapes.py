"""Shape inference and partial evaluation in one sweep, each making the other stronger.

What is computed from shapes becomes constant as soon as it is known; where dimensions stay free, Reshape, Expand and Slice
take constants that say the same (0, -1, "to the end").
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.fold import Folder
from graphopt.passes.inference import infer
from graphopt.passes.symbolic import Symbol, evaluate_symbolic, from_constant, is_known, shape_of
from graphopt.passes.targets import static_target
from graphopt.rewriting.pipeline import Context, Outcome

LARGEST = 256
"""Elements of the largest tensor that is taken for shape data."""


@dataclass(frozen=True)
class Shapes:
    """Infers all shapes and folds everything that depends on constants and shapes alone."""

    name: ClassVar[str] = "shapes"
    max_growth: int | None = None

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """One sweep in topological order, subgraphs where they occur."""
        edit.share_opsets(model)
        sweep = _Sweep(model, self.max_growth)
        sweep.visit(model.graph)
        return sweep.outcome()


class _Sweep:
    def __init__(self, model: ir.Model, max_growth: int | None) -> None:
        self._folder = Folder(model, max_growth)
        self._names = edit.Names(model)
        self._known: dict[ir.Value, np.ndarray] = {}
        self._applied: Counter[str] = Counter()

    def outcome(self) -> Outcome:
        return self._folder.outcome() + Outcome(bool(self._applied), self._applied)

    def visit(self, graph: ir.Graph, outer: Mapping[Hashable, ir.Value] = MappingProxyType({})) -> None:
        """``outer`` has the values of the graphs around by what is known of their data."""
        seen = dict(outer)
        for node in list(graph):
            if self._folder.fold(node):
                continue
            for subgraph in edit.subgraphs(node):
                self.visit(subgraph, seen)
            infer(node, self._known)
            if not self._evaluate(node) and not self._share(node, seen):
                self._simplify_target(node)

    def _evaluate(self, node: ir.Node) -> bool:
        """Records what is known of the outputs' data; replaces the node if that is everything."""
        results = self._results(node)
        if results is None:
            return False
        if all(is_known(array) for array in results) and not _is_output_identity(node):
            dtypes = [output.dtype for output in node.outputs]
            if all(dtype is not None for dtype in dtypes):
                arrays = zip(results, dtypes, strict=True)
                self._folder.replace(node, tuple(array.astype(dtype.numpy()) for array, dtype in arrays))  # type: ignore[union-attr]
                return True
        self._known.update(zip(node.outputs, results, strict=True))
        return False

    def _share(self, node: ir.Node, seen: dict[Hashable, ir.Value]) -> bool:
        """Replaces a node by a value before it that holds the same sizes, however it was computed."""
        if len(node.outputs) != 1 or node.outputs[0] not in self._known:
            return False
        result = node.outputs[0]
        entries = self._known[result]
        if entries.size == 0 or not all(isinstance(each, int | Symbol) for each in entries.reshape(-1)):
            return False
        first = seen.setdefault((result.dtype, entries.shape, tuple(entries.reshape(-1))), result)
        if first is result or not edit.can_replace(result, first):
            return False
        edit.replace_outputs(node, [first])
        self._applied["sizes computed twice"] += 1
        return True

    def _results(self, node: ir.Node) -> tuple[np.ndarray, ...] | None:
        if node.domain == "" and node.op_type == "Shape":
            return _shape(node)
        if node.domain == "" and node.op_type == "Size":
            return _size(node)
        arrays = [None if value is None else self._data(value) for value in node.inputs]
        if any(array is None and value is not None for array, value in zip(arrays, node.inputs, strict=True)):
            return None
        results = evaluate_symbolic(node, arrays)
        if (
            results is None
            or len(results) != len(node.outputs)
            or any(each.size > LARGEST for each in results)
        ):
            return None
        return results

    def _data(self, value: ir.Value) -> np.ndarray | None:
        if value in self._known:
            return self._known[value]
        tensor = edit.tensor(value)
        if tensor is None or tensor.size > LARGEST or tensor.dtype not in _SHAPE_TYPES:
            return None
        self._known[value] = from_constant(tensor.numpy())
        return self._known[value]

    def _simplify_target(self, node: ir.Node) -> None:
        """Gives a constant second input to Reshape and Expand where dimensions are free."""
        if node.domain != "" or len(node.inputs) < 2 or node.inputs[1] not in self._known:
            return
        value = node.inputs[1]
        if value is None or edit.tensor(value) is not None:
            return
        target = static_target(node, self._known[value])
        if target is not None and node.graph is not None:
            name = self._names.fresh(f"{node.outputs[0].name}_shape")
            node.replace_input_with(1, edit.add_constant(node.graph, target, name))
            node.attributes.pop("allowzero", None)
            self._applied[f"constant target of {node.op_type}"] += 1


_SHAPE_TYPES = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def _is_output_identity(node: ir.Node) -> bool:
    return node.op_type == "Identity" and node.outputs[0].is_graph_output()


def _shape(node: ir.Node) -> tuple[np.ndarray] | None:
    value = node.inputs[0]
    found = None if value is None else shape_of(value, attribute(node, "start") or 0, attribute(node, "end"))
    return None if found is None else (found,)


def _size(node: ir.Node) -> tuple[np.ndarray] | None:
    value = node.inputs[0]
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return (np.array(int(np.prod(value.shape.numpy(), dtype=np.int64)), dtype=object),)
