"""Takes channels out of a model: out of its constants, and out of what its nodes say about sizes and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit, infer_shapes
from graphopt.passes.prune.groups import Group, Structure
from graphopt.passes.prune.labels import line
from graphopt.passes.prune.rules.table import RULES

Kept = Mapping[str, NDArray[np.bool_]]
"""For groups by name, which of their channels stay."""


def remove(structure: Structure, kept: Kept) -> dict[tuple[str, int], NDArray[np.bool_]]:
    """Change the model of `structure`, which is of no use afterwards. Groups that are not named stay whole.

    Gives, by name and axis, which elements of the values of nodes were kept, where some were not.
    """
    removal = _Removal(structure, _gone(structure.groups, kept))
    left = removal.of_nodes()
    for node in list(structure.model.graph):
        rule = RULES.get((node.domain, node.op_type))
        if rule is not None and rule.repair is not None:
            rule.repair(removal, node)
    for value in structure.flow.values:
        if edit.tensor(value) is not None:
            removal.cut(value)
    _forget_shapes(structure.model)
    infer_shapes(structure.model)
    return left


def _gone(groups: Sequence[Group], kept: Kept) -> NDArray[np.int64]:
    """The classes that are removed."""
    found = [group.classes[~kept[group.name]] for group in groups if group.name in kept]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


class _Removal:
    """What is gone, for the rules of operators."""

    def __init__(self, structure: Structure, gone: NDArray[np.int64]) -> None:
        self._structure = structure
        self._gone = np.zeros(len(structure.classes) + 1, bool)
        self._gone[gone] = True
        self._names = edit.Names(structure.model)

    def kept(self, value: ir.Value | None, axis: int) -> NDArray[np.bool_] | None:
        """Which elements along an axis stay; None where all do."""
        for block in () if value is None else self._structure.flow.values.get(value, ()):
            placed = line(self._structure.classes[block])
            if placed is not None and placed[0] == axis % block.ndim:
                stays = ~self._gone[placed[1]]
                return None if stays.all() else stays
        return None

    def of_nodes(self) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """What is kept of all that nodes give, by name and axis."""
        found = {}
        for value in self._structure.flow.values:
            for axis in range(0 if value.shape is None or value.producer() is None else len(value.shape)):
                stays = self.kept(value, axis)
                if stays is not None:
                    found[value.name or "", axis] = stays
        return found

    def size(self, value: ir.Value, axis: int) -> int | None:
        """How many elements there are along an axis now, where some are gone."""
        found = self.kept(value, axis)
        return None if found is None else int(found.sum())

    def replace(self, node: ir.Node, index: int, content: NDArray[np.generic]) -> None:
        """Give a node another constant as an input."""
        graph = self._structure.model.graph
        name = self._names.fresh(f"{node.name}_pruned_{index}")
        node.replace_input_with(index, edit.add_constant(graph, np.asarray(content), name))

    def cut(self, value: ir.Value) -> None:
        """Take what is gone out of a constant."""
        array = edit.constant(value)
        assert array is not None
        for axis in range(array.ndim):
            stays = self.kept(value, axis)
            if stays is not None:
                array = np.compress(stays, array, axis)
        if value.shape is None or array.shape != tuple(value.shape.numpy()):
            value.const_value = ir.Tensor(np.ascontiguousarray(array), value.dtype, name=value.name)
            value.shape = ir.Shape(array.shape)


def _forget_shapes(model: ir.Model) -> None:
    """Of what nodes give, unless the caller relies on it."""
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
