"""Makes the layers of a model sparse: scores, masks, and what the weights that are left make up for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphopt.errors import GraphoptError
from graphopt.model import edit
from graphopt.passes.quantize.correct import has_bias, subtract
from graphopt.passes.sparsify.compensate import compensated
from graphopt.passes.sparsify.criteria import CRITERIA, Criterion, centred, comparable
from graphopt.passes.sparsify.inputs import Inputs, Seen
from graphopt.passes.sparsify.layers import Layer
from graphopt.passes.sparsify.patterns import Pattern, Share

MOST_ROWS = 4608
"""Rows of a matrix up to which the products of all pairs are kept: 170 MB."""

ROUNDS = 8
"""In which the zeros come, each chosen among weights that have made up for those before."""


@dataclass(frozen=True)
class Recipe:
    """Where zeros lie, which weights become zero, whether all layers share one ratio, and whether the rest makes up for it."""

    pattern: Pattern
    criterion: str = "magnitude"
    across: bool = False
    compensate: bool = True

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise GraphoptError(f"unknown criterion {self.criterion!r}; choose one of {', '.join(CRITERIA)}")
        if self.across and not isinstance(self.pattern, Share):
            raise GraphoptError(
                "layers share a ratio, and a pattern such as 2:4 has none: leave --global out"
            )

    @property
    def ranks(self) -> Criterion:
        """The criterion itself."""
        return CRITERIA[self.criterion]

    @property
    def uses_data(self) -> bool:
        """Whether inputs make a difference."""
        return self.ranks.data or self.compensate


@dataclass(frozen=True)
class Zeros:
    """Of the weights of a layer."""

    name: str
    operator: str
    weights: int
    zeros: int

    @property
    def share(self) -> float:
        return self.zeros / self.weights


def is_compensated(layer: Layer, recipe: Recipe) -> bool:
    """Whether a layer has few enough rows."""
    return recipe.compensate and layer.rows <= MOST_ROWS


def observers(layers: Sequence[Layer], recipe: Recipe) -> dict[str, Inputs]:
    """What has to be seen of the inputs of layers, by the names of those. Raises GraphoptError for a criterion that a layer is
    too large for."""
    large = [layer for layer in layers if layer.rows > MOST_ROWS]
    if recipe.ranks.gram and large:
        raise GraphoptError(
            f"{recipe.criterion} compares all pairs of inputs, and {large[0].name} has {large[0].rows}; "
            f"{MOST_ROWS} are the most: exclude it, or choose another criterion"
        )
    return {
        layer.name: Inputs.of(layer, recipe.ranks.spread, recipe.ranks.gram or is_compensated(layer, recipe))
        for layer in layers
    }


def make_sparse(
    model: ir.Model, layers: Sequence[Layer], recipe: Recipe, seen: Mapping[str, Inputs]
) -> list[Zeros]:
    """Give layers zeros, in place; what is not `seen` is made up for by nobody. Raises GraphoptError for weights that are not finite."""
    before = {layer.name: _finite(layer) for layer in layers}
    after = before
    for pattern in recipe.pattern.steps(ROUNDS if recipe.compensate and seen else 1):
        masks = _masks(after, replace(recipe, pattern=pattern), seen)
        after = {
            layer.name: _made_up_for(
                layer, recipe, before[layer.name], masks[layer.name], seen.get(layer.name)
            )
            for layer in layers
        }
    names = edit.Names(model)
    for layer in layers:
        layer.write(after[layer.name])
        if _shifts_bias(layer) and layer.name in seen and is_compensated(layer, recipe):
            change = after[layer.name] - before[layer.name]
            _take_out_of_bias(model.graph, layer, change, seen[layer.name].groups, names)
    return [_zeros(layer) for layer in layers]


def _finite(layer: Layer) -> np.ndarray:
    matrices = layer.matrices()
    if not np.isfinite(matrices).all():
        raise GraphoptError(
            f"the weights of {layer.name} are not all finite; exclude it, or repair the model"
        )
    return matrices


def _masks(
    weights: Mapping[str, np.ndarray], recipe: Recipe, seen: Mapping[str, Inputs]
) -> dict[str, np.ndarray]:
    scores = {name: _scores(recipe, each, seen.get(name)) for name, each in weights.items()}
    if recipe.across and isinstance(recipe.pattern, Share):
        return dict(
            zip(scores, recipe.pattern.keep_best([comparable(each) for each in scores.values()]), strict=True)
        )
    return {name: recipe.pattern.keep(each) for name, each in scores.items()}


def _scores(recipe: Recipe, matrices: np.ndarray, inputs: Inputs | None) -> np.ndarray:
    groups = [Seen()] * len(matrices) if inputs is None else inputs.groups
    return np.stack([recipe.ranks.score(each, seen) for each, seen in zip(matrices, groups, strict=True)])


def _made_up_for(
    layer: Layer, recipe: Recipe, before: np.ndarray, keep: np.ndarray, inputs: Inputs | None
) -> np.ndarray:
    """The weights that are left. What is constant in the inputs is made up for by the bias, where there is one."""
    if inputs is None or not is_compensated(layer, recipe):
        return np.asarray(before * keep)
    products_of = centred if _shifts_bias(layer) else _mean_products
    return np.stack(
        [
            compensated(weights, mask, products_of(seen))
            for weights, mask, seen in zip(before, keep, inputs.groups, strict=True)
        ]
    )


def _shifts_bias(layer: Layer) -> bool:
    """Whether a layer has one node, with a bias or room for it."""
    return len(layer.nodes) == 1 and has_bias(layer.nodes[0], layer.groups * layer.outputs)


def _take_out_of_bias(
    graph: ir.Graph, layer: Layer, change: np.ndarray, seen: Sequence[Seen], names: edit.Names
) -> None:
    """What a change of the weights adds to the mean of every output."""
    means = np.stack([each.channels.means for each in seen])
    subtract(graph, layer.nodes[0], np.einsum("gr,gro->go", means, change).reshape(-1), names)


def _mean_products(seen: Seen) -> np.ndarray:
    assert seen.gram is not None
    return np.asarray(seen.gram.products / max(seen.channels.count, 1))


def _zeros(layer: Layer) -> Zeros:
    matrices = layer.matrices()
    return Zeros(layer.name, layer.nodes[0].op_type, matrices.size, int((matrices == 0).sum()))
