"""The process that measures: loads libraries of candidates and times each next to a reference, one answer a candidate."""

from __future__ import annotations

import ctypes
import os
import sys
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from graphopt.backends.tune.gpu_runner import GpuLoaded
from graphopt.backends.tune.protocol import FLUSH, Answer, Request
from graphopt_runtime.errors import GraphoptError
from graphopt_runtime.library import Handle, Library

SAMPLES = 5
"""Timed runs of a candidate and of its reference; three times as many where the candidate seems to be faster."""

HOPELESS = 2.0
"""Ratio to the reference from which two samples are enough."""

ALIGNMENT = 64


class Timed(Protocol):
    """A library of candidates that is ready to run."""

    def seconds(self, variant: int) -> float:
        """Of one run with the caches as the rest of a model leaves them."""
        ...


class _Loaded:
    """A library with memory for its tensors, here."""

    def __init__(self, request: Request) -> None:
        built = request.built
        code = memoryview(built.path.read_bytes())
        self._weights = _memory(built.weights)
        self._handle = Handle(
            Library(code, "candidates"), self._weights.ctypes.data, request.threads, self._weights
        )
        self._arrays = [[_memory(size) for size in sizes] for sizes in (*built.inputs, *built.outputs)]
        count = len(built.inputs)
        self._inputs = [self._table(arrays) for arrays in self._arrays[:count]]
        self._outputs = [self._table(arrays) for arrays in self._arrays[count:]]

    def seconds(self, variant: int) -> float:
        """Of one run with the caches as the rest of a model leaves them."""
        self._time(FLUSH)
        return self._time(variant)

    def _time(self, variant: int) -> float:
        spent = self._handle.library.time(
            self._handle.address, variant, self._inputs[variant], self._outputs[variant], 1
        )
        if spent < 0:
            raise RuntimeError(f"error {-spent:g}")
        return float(spent)

    @staticmethod
    def _table(arrays: list[np.ndarray]) -> object:
        return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def measure(loaded: Timed, candidate: int, reference: int) -> Answer:
    """Time a pair of variants in turns."""
    loaded.seconds(candidate), loaded.seconds(reference)
    times: list[tuple[float, float]] = []
    wanted = SAMPLES
    while len(times) < wanted:
        times.append((loaded.seconds(candidate), loaded.seconds(reference)))
        ours, theirs = np.min(times, axis=0)
        if len(times) >= 2 and ours > HOPELESS * theirs:
            break
        if len(times) == SAMPLES and candidate != reference and _ratio(times) < 1:
            wanted = 3 * SAMPLES
    medians = 1e6 * np.median(times, axis=0)
    return Answer(float(medians[0]), float(medians[1]))


def _ratio(times: list[tuple[float, float]]) -> float:
    """Of the medians."""
    ours, theirs = np.median(times, axis=0)
    return float(ours / theirs)


def _memory(size: int) -> np.ndarray:
    """Aligned bytes that hold small float32 numbers."""
    whole = np.full(size // 4 + ALIGNMENT, 0.01, np.float32)
    first = -whole.ctypes.data % ALIGNMENT // 4
    return whole[first : first + max(size // 4, 1)]


def serve(pipe: Connection) -> None:
    """Answer requests, pair by pair, until the pipe closes."""
    while True:
        try:
            request: Request = pipe.recv()
        except EOFError:
            return
        loaded = GpuLoaded(request.built) if request.built.results else _Loaded(request)
        for candidate, reference in request.pairs:
            pipe.send(_answer(loaded, candidate, reference))


def _answer(loaded: Timed, candidate: int, reference: int) -> Answer | None:
    """None for a candidate for a GPU that computes something else."""
    if isinstance(loaded, GpuLoaded) and not loaded.agrees(candidate, reference):
        return None
    return measure(loaded, candidate, reference)


def main() -> None:
    """A GPU that has refused something goes on refusing: the next process finds it as it was."""
    try:
        serve(Connection(int(sys.argv[1])))
    except (RuntimeError, GraphoptError) as error:
        print(f"tune: a candidate failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
