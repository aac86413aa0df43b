"""Times candidates on a GPU by its events, and compares what they compute. For the process that measures.

Between two runs the second-level cache is written over, and operands of run time are written anew, as the kernel before would do.
"""

from __future__ import annotations

import ctypes
import statistics
from typing import Any

import ml_dtypes
import numpy as np

from graphopt.backends.tune.protocol import Built
from graphopt_runtime.driver import DEVICE, Block, ask, copy_to_host, inside
from graphopt_runtime.library import Handle, Library

Array = np.ndarray[Any, Any]

RUNS = 7
"""Of which one sample is the median."""

BITS = "uint16"
"""The dtype of results that are bfloat16."""

L2_BYTES = 38
"""The driver's number of the attribute."""

FLUSHED = 2
"""Times the size of the cache is written."""

LEAST_FLUSH = 1 << 20

UNWRITTEN = 0xFF
"""Bytes of results before a run: no number in any float."""

ROUNDINGS = 4
"""By so many roundings of the largest result may two results differ."""

ROUNDING = {"float16": 2.0**-10, BITS: 2.0**-7, "float32": 2.0**-13}
"""Of results; sums of tf32 are added up in different orders. Those of bytes are equal."""


class GpuLoaded:
    """A library of candidates of one workload, with memory on the GPU, which all of them share. Raises GraphoptError for what the
    driver refuses, after which the process cannot use the GPU."""

    def __init__(self, built: Built) -> None:
        self._built = built
        self._weights = noise(built.weights, 0)
        code = memoryview(built.path.read_bytes())
        self._handle = Handle(Library(code, "candidates"), self._weights.ctypes.data, 1, self._weights)
        self._sizes = built.inputs[1]
        self._originals = [_on_gpu(noise(size, 1 + i)) for i, size in enumerate(self._sizes)]
        self._inputs = [Block(size) for size in self._sizes]
        self._output = Block(built.outputs[1][0])
        self._flushed = _flush_bytes()
        self._cache = Block(self._flushed)
        self._events = _event(), _event()
        self._tables = _table(self._inputs), _table([self._output])
        self._expected: dict[int, tuple[Array, float]] = {}

    def agrees(self, candidate: int, reference: int) -> bool:
        """Whether two variants compute the same, but for roundings."""
        if reference not in self._expected:
            result = self._result(reference)
            self._expected = {reference: (result, largest(result))}
        return agree(self._result(candidate), *self._expected[reference])

    def seconds(self, variant: int) -> float:
        """Of one run with the caches as the rest of a model leaves them; a median."""
        return statistics.median(self._run(variant) for _ in range(RUNS))

    def _result(self, variant: int) -> Array:
        size = self._built.outputs[variant][0]
        self._prepare()
        with inside():
            ask("cuMemsetD8Async", _place(self._output), UNWRITTEN, ctypes.c_size_t(size), None)
        self._launch(variant)
        result = np.empty(size, np.uint8)
        copy_to_host(result.ctypes.data, self._output.start, size)
        return result.view(self._built.results)

    def _run(self, variant: int) -> float:
        begin, end = self._events
        self._prepare()
        with inside():
            ask("cuEventRecord", begin, None)
        self._launch(variant)
        milliseconds = ctypes.c_float()
        with inside():
            ask("cuEventRecord", end, None)
            ask("cuEventSynchronize", end)
            ask("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return milliseconds.value / 1e3

    def _prepare(self) -> None:
        """The cache holds nothing of weights, and operands."""
        with inside():
            ask("cuMemsetD8Async", _place(self._cache), 0, ctypes.c_size_t(self._flushed), None)
            for block, original, size in zip(self._inputs, self._originals, self._sizes, strict=True):
                ask("cuMemcpyAsync", _place(block), _place(original), ctypes.c_size_t(size), None)

    def _launch(self, variant: int) -> None:
        """On the default stream, which goes on by itself."""
        library = self._handle.library
        if library.run_on(self._handle.address, variant, *self._tables, None):
            raise RuntimeError(library.failure().decode())


def agree(result: Array, expected: Array, size: float) -> bool:
    """Whether results are equal, those of floats but for roundings of numbers of such a size; what is no number equals nothing."""
    tolerance = ROUNDING.get(str(expected.dtype))
    if tolerance is None:
        return bool(np.array_equal(result, expected))
    bits = f"uint{8 * expected.itemsize}"
    differing = result.view(bits) != expected.view(bits)
    distance = np.abs(_floats(result[differing]) - _floats(expected[differing])).max(initial=0.0)
    return bool(np.isfinite(size) and distance <= ROUNDINGS * tolerance * size)


def largest(values: Array) -> float:
    """The magnitude of results; NaN where one is no number."""
    return float(np.abs(_floats(values)).max(initial=0.0))


def _floats(values: Array) -> Array:
    return (values.view(ml_dtypes.bfloat16) if values.dtype == BITS else values).astype(np.float32)


def noise(size: int, seed: int) -> Array:
    """Random bytes that are numbers below 2 of either sign in float16, bfloat16 and float32."""
    bits = np.frombuffer(np.random.default_rng(seed).bytes(size + 2 - size % 2), np.uint16)
    return (bits & 0x83FF | 0x3C00).view(np.uint8)[: max(size, 1)]


def _on_gpu(array: Array) -> Block:
    block = Block(array.nbytes)
    with inside():
        ask(
            "cuMemcpyHtoD_v2",
            _place(block),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )
    return block


def _flush_bytes() -> int:
    size = ctypes.c_int()
    ask("cuDeviceGetAttribute", ctypes.byref(size), L2_BYTES, DEVICE)
    return max(FLUSHED * size.value, LEAST_FLUSH)


def _event() -> ctypes.c_void_p:
    """With times."""
    event = ctypes.c_void_p()
    with inside():
        ask("cuEventCreate", ctypes.byref(event), 0)
    return event


def _place(block: Block) -> ctypes.c_uint64:
    return ctypes.c_uint64(block.start)


def _table(blocks: list[Block]) -> Any:
    return (ctypes.c_void_p * max(len(blocks), 1))(*(block.start for block in blocks))
