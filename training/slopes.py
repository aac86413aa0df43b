"""The slope of the loss in every weight, on data, with the model itself as its teacher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from graphopt.accuracy.calibration import batch_size
from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.training.executor.module import TorchModel

Progress = Callable[[str], None]

BATCHES = 8
"""Slopes are means over as many parts of the samples."""


def slopes(
    model: ir.Model, data: Dataset, samples: int, progress: Progress, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """For every float weight by name `[parts, *shape]`: how the loss of each of up to `BATCHES` parts of the samples changes with it.

    The loss of a classifier is the cross entropy of its first output of float32 with the labels of the data, or with its own choice; that of
    any other model the sum of its first output of float32 with random signs. Raises UnsupportedError for operators that torch cannot run.
    """
    module = TorchModel(model)
    size, count = batch_size(model, len(data)), min(samples, len(data))
    if count < size:
        raise DataError(f"the calibration data has {len(data)} sample(s), one run of the model takes {size}")
    floats = [value.name or "" for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    if not floats:
        raise GraphoptError("slopes need an output of float32, and the model has none")
    parts = max(min(BATCHES, count // size), 1)
    sums = {name: np.zeros((parts, *tensor.shape), np.float32) for name, tensor in module.learned().items()}
    signs = torch.Generator().manual_seed(seed)
    for number, feeds in enumerate(data.batches(size, count - count % size)):
        progress(f"slopes: sample {number * size + 1} of {count}")
        labels = None if data.labels is None else data.labels[number * size : (number + 1) * size]
        output = module({name: torch.from_numpy(array) for name, array in feeds.items()}, floats[:1])
        module.zero_grad()
        _loss(next(iter(output.values())), labels, signs).backward()
        for name, tensor in module.learned().items():
            if tensor.grad is not None:
                sums[name][number % parts] += tensor.grad.numpy()
    return sums


def _loss(output: torch.Tensor, labels: NDArray[np.int64] | None, signs: torch.Generator) -> torch.Tensor:
    if output.ndim == 2 and output.shape[1] > 1:
        wanted = output.argmax(dim=1) if labels is None else torch.from_numpy(labels)
        if int(wanted.max()) >= output.shape[1] or int(wanted.min()) < 0:
            raise DataError(f"there are labels beyond the {output.shape[1]} classes of the model")
        return torch.nn.functional.cross_entropy(output, wanted)
    random = torch.randint(0, 2, output.shape, generator=signs) * 2 - 1
    return (output * random).sum()
