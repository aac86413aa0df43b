"""Runs a model over data and shows what its values are: one pass, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from graphopt.arrays import Array
from graphopt.data import Dataset
from graphopt.errors import DataError
from graphopt.verify import ReferenceFailed, Runner, reference

BATCH = 8
"""Samples at a time where the model leaves their number open."""

FEW = 16
"""Samples below which ranges say little."""


def batch_size(model: ir.Model, samples: int) -> int:
    """Samples that one run of the model takes: those of the first dimension; where that is free `BATCH`, or all there are."""
    firsts = [value.shape[0] for value in model.graph.inputs if value.shape is not None and len(value.shape)]
    fixed = {first for first in firsts if isinstance(first, int)}
    return max(fixed) if fixed else max(min(BATCH, samples), 1)


def observe(
    model: ir.Model,
    values: Sequence[str],
    data: Dataset,
    samples: int,
    progress: Callable[[str], None],
) -> Iterator[dict[str, Array]]:
    """The named values of each batch of the first samples. Raises DataError where there are none, or NaN or infinity among them."""
    count = min(samples, len(data))
    run, size = _runner(model, values), batch_size(model, count)
    if count < size:
        raise DataError(f"the calibration data has {len(data)} sample(s), one run of the model takes {size}")
    for number, feeds in enumerate(data.batches(size, count)):
        progress(f"calibrate: sample {number * size + 1} of {count}")
        try:
            found = run(feeds)
        except ReferenceFailed as error:
            raise DataError(f"the calibration data does not fit the model: {error}") from error
        yield {name: _finite(name, found[name]) for name in values}


def _runner(model: ir.Model, values: Sequence[str]) -> Runner:
    """The model with values as outputs."""
    copy = model.clone()
    present = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    wanted = set(values) - present
    copy.graph.outputs.extend(value for node in copy.graph for value in node.outputs if value.name in wanted)
    run = reference(copy, optimised=True)
    inputs = [value.name for value in model.graph.inputs if value.name in set(values)]
    return lambda feeds: {**run(feeds), **{name: feeds[name] for name in inputs if name is not None}}


def _finite(name: str, array: Array) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"{name!r} becomes NaN or infinite on the calibration data; is its preprocessing right?"
        )
    return array
