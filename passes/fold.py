"""Computes at once what depends on constants only, unless that would bloat the model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.codes import is_codes
from graphopt.passes.evaluate import BY_REFERENCE, FUNCTIONS, evaluate
from graphopt.rewriting.pipeline import Context, Outcome

GROWING = frozenset({"ConstantOfShape", "Expand", "OneHot", "Range", "Tile", "EyeLike"})
"""Operators whose result can be far larger than their inputs, so it is estimated before it is computed."""


@dataclass(frozen=True)
class Fold:
    """Constant folding. A result stays computed at run time if it would enlarge the model by more than ``max_growth``
    bytes (by default a small share of its weights); weights behind DequantizeLinear stay quantized, and those that are codes
    of a codebook stay codes by default."""

    name: ClassVar[str] = "fold"
    max_growth: int | None = None

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Folds in topological order, so one application folds all there is."""
        edit.share_opsets(model)
        folder = Folder(model, self.max_growth)
        for node in list(edit.nodes(model.graph)):
            folder.fold(node)
        return folder.outcome()


def allowance(model: ir.Model) -> int:
    """The bytes that one folded operator may add to a model: half a percent of its weights, within bounds."""
    weights = (value.const_value for value in model.graph.initializers.values())
    total = sum(edit.byte_size(tensor) for tensor in weights if tensor is not None)
    return min(max(total // 200, LEAST_GROWTH), LARGEST_GROWTH)


LEAST_GROWTH, LARGEST_GROWTH = 1 << 16, 1 << 17


class Folder:
    """Folds node by node and keeps count."""

    def __init__(self, model: ir.Model, max_growth: int | None = None) -> None:
        self._names = edit.Names(model)
        self._max_growth = allowance(model) if max_growth is None else max_growth
        self._keeps_codes = max_growth is None
        self._applied: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()

    def outcome(self) -> Outcome:
        """What was folded so far, by operator, and what was left alone."""
        return Outcome(bool(self._applied), self._applied, self._refused)

    def fold(self, node: ir.Node) -> bool:
        """Replaces ``node`` by constants if its inputs are constant and the result is small enough."""
        if not self._is_candidate(node) or (self._keeps_codes and is_codes(node)):
            return False
        freed = sum(tensor.nbytes for tensor in _freed(node))
        if node.op_type in GROWING and _declared_bytes(node) - freed > self._max_growth:
            return self._refuse(node)
        results = evaluate(node, [edit.constant(value) for value in node.inputs])
        if results is None or not _types_agree(node, results):
            return False
        if sum(array.nbytes for array in results) - freed > self._max_growth:
            return self._refuse(node)
        self.replace(node, results)
        return True

    def replace(self, node: ir.Node, results: tuple[np.ndarray, ...]) -> None:
        """Puts initializers with ``results`` in the place of ``node``."""
        assert node.graph is not None
        self._applied[f"fold {node.op_type}"] += 1
        constants = [
            None
            if edit.is_unused(output)
            else edit.add_constant(node.graph, array, self._names.fresh(f"{output.name}_folded"))
            for output, array in zip(node.outputs, results, strict=False)
        ]
        constants += [None] * (len(node.outputs) - len(constants))
        edit.replace_outputs(node, constants)

    def _is_candidate(self, node: ir.Node) -> bool:
        if node.graph is None or (node.op_type not in FUNCTIONS and node.op_type not in BY_REFERENCE):
            return False
        if node.op_type == "Identity" and node.outputs[0].is_graph_output():
            return False
        return all(value is None or _is_numeric(edit.tensor(value)) for value in node.inputs)

    def _refuse(self, node: ir.Node) -> bool:
        self._refused[f"fold {node.op_type}", "the result would enlarge the model"] += 1
        return False


def _is_numeric(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype != ir.DataType.STRING


def _freed(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    """The constants that nobody else needs once ``node`` is gone."""
    for value in dict.fromkeys(node.inputs):
        tensor = edit.tensor(value)
        if value is None or tensor is None or value.is_graph_output():
            continue
        if all(use.node is node for use in value.uses()):
            yield tensor


def _declared_bytes(node: ir.Node) -> int:
    """The size of the outputs by their shapes; 0 where they are unknown (then they are small or computed anyway)."""
    total = 0
    for output in node.outputs:
        if output.shape is not None and output.shape.is_static() and output.dtype is not None:
            total += int(np.prod(output.shape.numpy(), dtype=np.float64)) * output.dtype.bitwidth // 8
    return total


def _types_agree(node: ir.Node, results: tuple[np.ndarray, ...]) -> bool:
    """Guards against a wrong dtype: no fold is better than a changed type."""
    return all(
        output.dtype is None or output.dtype == ir.DataType.from_numpy(array.dtype)
        for output, array in zip(node.outputs, results, strict=False)
    )
