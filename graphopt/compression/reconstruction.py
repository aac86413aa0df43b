"""Fits the layers of a smaller model to what they gave before, one by one, each to what it reads by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.accuracy.calibration import batch_size
from graphopt.accuracy.verify import reference
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.model import edit
from graphopt.passes.prune.refit import Layer, Places, fit, inputs, layers

Progress = Callable[[str], None]
Kept = Mapping[tuple[str, int], NDArray[np.bool_]]

LEAST_ROWS, MOST_ROWS, ROWS_A_WEIGHT = 4096, 32768, 6
"""Positions on which a layer is fitted."""


def reconstruct(
    original: ir.Model,
    smaller: ir.Model,
    kept: Kept,
    data: Dataset,
    samples: int,
    progress: Progress,
    seed: int = 0,
) -> None:
    """Change the weights of `smaller`, in place, whose nodes are called as in `original`.

    `kept` tells, by names of values and axes, which channels it still has. Layers that lost positions as well, as where tokens are mixed, stay as they are. Raises
    DataError where there are too few samples.
    """
    chosen = [layer for layer in layers(smaller.graph) if _has_all_positions(layer, kept)]
    names = edit.Names(smaller)
    if not chosen:
        return
    count = min(samples, len(data))
    size = batch_size(original, count)
    if count < size:
        raise DataError(f"the calibration data has {len(data)} sample(s), one run of the model takes {size}")
    batches = list(data.batches(size, count - count % size))
    progress("correct: results of the original")
    drawn = _draw(original, chosen, batches, kept, np.random.default_rng(seed))
    for number, layer in enumerate(chosen):
        progress(f"correct: layer {number + 1} of {len(chosen)}")
        places, wanted = drawn[layer.target, layer.node.name or ""]
        run = reference(
            _until(smaller, [layer.source, *([layer.beside] if layer.beside else [])]), optimised=True
        )
        rows, results = [], []
        for feeds, place, target in zip(batches, places, wanted, strict=True):
            values = {**feeds, **run(feeds)}
            rows.append(inputs(layer, values[layer.source], place))
            results.append(target - place.of(values[layer.beside]) if layer.beside else target)
        fit(layer, np.concatenate(rows), np.concatenate(results), names)


def _has_all_positions(layer: Layer, kept: Kept) -> bool:
    """Whether the results of a layer lost channels alone."""
    value = layer.node.outputs[0]
    rank = 0 if value.shape is None else len(value.shape)
    return not any((layer.target, axis) in kept for axis in range(rank) if axis != layer.axis % max(rank, 1))


Drawn = dict[tuple[str, str], tuple[list[Places], list[NDArray[np.float32]]]]
"""For a target and a node, positions of each batch, and the results of the original there."""


def _draw(
    original: ir.Model,
    chosen: Sequence[Layer],
    batches: Sequence[Mapping[str, NDArray[np.generic]]],
    kept: Kept,
    rng: np.random.Generator,
) -> Drawn:
    run = reference(_until(original, [layer.target for layer in chosen]), optimised=True)
    found: Drawn = {(layer.target, layer.node.name or ""): ([], []) for layer in chosen}
    for feeds in batches:
        values = {**feeds, **run(feeds)}
        for layer in chosen:
            target = values[layer.target]
            axis = layer.axis % target.ndim
            places = Places.draw(target.shape, axis, _rows(layer) // len(batches) + 1, rng)
            rows = places.of(target)
            mask = kept.get((layer.target, axis))
            found[layer.target, layer.node.name or ""][0].append(places)
            found[layer.target, layer.node.name or ""][1].append(rows if mask is None else rows[:, mask])
    return found


def _rows(layer: Layer) -> int:
    weight = edit.tensor(layer.node.inputs[1])
    assert weight is not None
    per_filter = (
        int(np.prod(weight.shape.numpy()[1:]))
        if layer.node.op_type == "Conv"
        else int(weight.shape.numpy()[0])
    )
    return min(max(ROWS_A_WEIGHT * per_filter, LEAST_ROWS), MOST_ROWS)


def _until(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The part of a model that gives these values."""
    part = model.clone()
    wanted = dict.fromkeys(names)
    values = {output.name: output for node in part.graph for output in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(values[name] for name in wanted if name in values)
    if not len(part.graph.outputs):
        part.graph.outputs.append(next(iter(values.values())))
    for node in reversed(list(part.graph)):
        if edit.is_dead(node):
            edit.detach(node)
    return part
