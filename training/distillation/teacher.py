"""A teacher, run by ONNX Runtime: nothing is learned on it, and so it costs little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.calibration import exposing
from graphopt.accuracy.verify import ReferenceFailed, Runner, reference
from graphopt.arrays import Array, Feeds
from graphopt.errors import DataError, GraphoptError
from graphopt.model import save


@dataclass(frozen=True)
class Teacher:
    """A model file that takes `size` samples at a time, or any number, and is asked for some of its values."""

    path: Path
    names: Sequence[str]
    size: int | None
    threads: int = 0

    @classmethod
    def of(cls, model: ir.Model, names: Sequence[str], path: Path) -> Teacher:
        """One that is asked for these values of a model, which is written to `path`."""
        save(exposing(model, names), path)
        return cls(path, names, fixed_size(model))

    def values(self, feeds: Feeds) -> dict[str, Array]:
        """What is asked for. Raises DataError where samples do not fit, GraphoptError where values do not belong to samples."""
        if not self.names:
            return {}
        parts = [self._values(part) for part in pieces(feeds, self.size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    @cached_property
    def _run(self) -> Runner:
        return reference(self.path, optimised=True, threads=self.threads)

    def _values(self, feeds: Feeds) -> Mapping[str, Array]:
        try:
            found = self._run(feeds)
        except ReferenceFailed as error:
            raise DataError(f"the data does not fit the teacher: {error}") from error
        for name in self.names:
            if found[name].ndim == 0 or len(found[name]) != samples_of(feeds):
                raise GraphoptError(f"the teacher's value {name!r} has no samples along its first axis")
        return found


def fixed_size(model: ir.Model) -> int | None:
    """Samples that one run of a model takes, None where it takes any number."""
    shapes = [value.shape for value in model.graph.inputs if not value.is_initializer()]
    firsts = [shape[0] for shape in shapes if shape is not None and len(shape)]
    return max((first for first in firsts if isinstance(first, int)), default=None)


def samples_of(arrays: Mapping[str, Array]) -> int:
    """How many there are along the first axis of every array."""
    return len(next(iter(arrays.values())))


def pieces(arrays: Mapping[str, Array], size: int | None) -> Iterator[dict[str, Array]]:
    """Arrays of `size` samples each; all samples in one where that is None."""
    step = size or samples_of(arrays)
    for start in range(0, samples_of(arrays), step):
        yield {name: array[start : start + step] for name, array in arrays.items()}
