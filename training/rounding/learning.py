"""Goes through the layers of a quantised model and learns how to round the weights of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from graphopt.accuracy.calibration import batch_size
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.training.executor import TorchModel
from graphopt.training.executor.operator import Tensor
from graphopt.training.rounding.adaround import Run, Samples, error, learn
from graphopt.training.rounding.layers import Layer, find_layers

STEPS = 500
"""Of gradient descent, for each layer."""

MOST_BYTES = 1 << 28
"""Of the samples that are held for one layer."""

HELD_OUT = 0.25
"""Share of the samples that only judge."""

FEWEST = 8
"""Samples below which nothing can be learned."""


@dataclass(frozen=True)
class LayerRounding:
    """What became of one layer: its relative error on held-out samples before and after, and how many weights are rounded away from
    the nearest level. `kept` says whether the learned levels are in the model, because the error is smaller with them."""

    node: str
    before: float
    after: float
    moved: int
    weights: int

    @property
    def kept(self) -> bool:
        return self.after < self.before


def learn_rounding(
    teacher: ir.Model,
    quantized: ir.Model,
    data: Dataset,
    *,
    samples: int,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda stage: None,
) -> list[LayerRounding]:
    """Chooses for every weight of `quantized`, in place, whether it is rounded up or down; scales stay.

    `teacher` is the same model on floats, `data` unlabelled samples, of which the first are used: at most `samples`, and no more of
    them for one layer than fit into `MOST_BYTES`. A layer learns on what the layers before it give with their new weights. The same
    arguments give the same levels. Raises UnsupportedError for operators that cannot be run in torch, DataError for too few samples.
    """
    layers = find_layers(teacher, quantized)
    if layers and min(samples, len(data)) < FEWEST:
        raise DataError(f"{FEWEST} or more samples are needed to learn how to round, there are {len(data)}")
    count = min(samples, len(data))
    student = TorchModel(quantized, trainable=())
    pair = _Pair(TorchModel(teacher, trainable=()), student, data, count, batch_size(quantized, count))
    found = []
    for number, layer in enumerate(layers):
        progress(f"learn rounding: layer {number + 1} of {len(layers)}")
        found.append(_learn_layer(pair, layer, steps, seed + number))
    return found


@dataclass(frozen=True)
class _Pair:
    """Both models as modules, and what they are fed with."""

    teacher: TorchModel
    student: TorchModel
    data: Dataset
    count: int
    size: int

    def samples_for(self, layer: Layer) -> Samples:
        """What a layer reads, and what it should give, until memory or samples are used up."""
        inputs: list[Tensor] = []
        targets: list[Tensor] = []
        used = 0
        with torch.no_grad():
            for feeds in self._feeds():
                inputs.append(self.student(feeds, [layer.input])[layer.input])
                targets.append(self.teacher(feeds, [layer.result])[layer.result])
                used += inputs[-1].nbytes + targets[-1].nbytes
                if used > MOST_BYTES and len(inputs) * self.size >= FEWEST:
                    break
        return Samples(torch.cat(inputs), torch.cat(targets))

    def _feeds(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.data.batches(self.size, self.count):
            yield {name: torch.from_numpy(np.asarray(array)) for name, array in batch.items()}


def _learn_layer(pair: _Pair, layer: Layer, steps: int, seed: int) -> LayerRounding:
    samples = pair.samples_for(layer)
    judged = int(len(samples) * HELD_OUT) or 1
    known, held_out = samples.part(slice(judged, None)), samples.part(slice(judged))
    student, name = pair.student, layer.levels.name or ""
    levels = student.constants()[name]

    def run(inputs: Tensor, weight: Tensor) -> Tensor:
        return student({layer.input: inputs, layer.weight: weight}, [layer.result])[layer.result]

    learned = learn(run, layer.floats, layer.grid, known, steps, seed)
    before, after = (_judged(run, layer.grid.values(each), held_out) for each in (levels, learned))
    done = LayerRounding(layer.name, before, after, int((learned != levels).sum()), levels.numel())
    if done.kept:
        levels.copy_(learned)
        _store(layer.levels, levels)
    return done


def _judged(run: Run, weight: Tensor, samples: Samples) -> float:
    with torch.no_grad():
        return float(error(run, weight, samples))


def _store(value: ir.Value, levels: Tensor) -> None:
    old = value.const_value
    assert old is not None
    array = levels.numpy().astype(old.dtype.numpy())
    value.const_value = ir.Tensor(array, old.dtype, name=value.name)
