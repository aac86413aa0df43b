"""What lowering produces and code generation consumes: buffers, kernels, and the steps of a driver."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tvm import tirx

    from graphopt.artifacts.coding import Origin
    from graphopt.backends.schedules.workload import Workload

ALIGNMENT = 64
"""Bytes; every buffer starts on such a boundary (a cache line, and one AVX-512 register)."""


class Role(enum.Enum):
    """Where the memory of a buffer comes from."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    TEMPORARY = "temporary"


@dataclass(eq=False)
class Buffer:
    """A flat array: `size` elements of `dtype` (a numpy name). Shapes and layouts live in the tensors that view it."""

    name: str
    size: int
    dtype: str
    role: Role = Role.TEMPORARY
    data: np.ndarray[Any, Any] | None = field(default=None, repr=False)
    origin: Origin | None = field(default=None, repr=False)
    """What the data is computed from, where that is smaller."""

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Launch:
    """How many threads of a device run a kernel: `blocks` of `threads` each, with so many bytes of memory that they share."""

    blocks: int
    threads: int
    shared: int = 0


@dataclass(eq=False)
class Kernel:
    """One function of the library. `buffers` are its parameters in order; those in `written` are its results."""

    name: str
    function: tirx.PrimFunc
    buffers: Sequence[Buffer]
    written: frozenset[Buffer]
    layer: str
    """The ONNX nodes it computes, for reports."""
    macs: int = 0
    """Multiply-accumulates of those nodes."""
    integer: bool = False
    """Whether those are of integers."""
    workload: Workload | None = None
    """What a schedule was chosen for, where one was."""
    launch: Launch | None = None
    """None where a driver calls the function."""

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers it reads and writes, each counted once and in full."""
        return sum(buffer.nbytes for buffer in self.buffers)


@dataclass(eq=False)
class Loop:
    """Run `body` for `trips` iterations, stopping early once `condition` (a bool scalar) is false.

    `trips` is a number or an int64 scalar buffer; None stands for no limit. `counter` (an int64 scalar buffer)
    holds the iteration number while the body runs.
    """

    trips: int | Buffer | None
    condition: Buffer | None
    counter: Buffer
    body: list[Step]


@dataclass(eq=False)
class Branch:
    """Run `then` if the bool scalar `condition` holds, else `otherwise`."""

    condition: Buffer
    then: list[Step]
    otherwise: list[Step]


Step = Kernel | Loop | Branch


@dataclass
class Program:
    """A lowered model: its steps in order, with the buffers its caller provides and receives."""

    inputs: list[Buffer]
    outputs: list[Buffer]
    steps: list[Step]

    def kernels(self) -> list[Kernel]:
        """All kernels, those inside loops and branches included, in order of appearance."""
        return list(_walk_kernels(self.steps))


def _walk_kernels(steps: Sequence[Step]) -> Iterator[Kernel]:
    for step in steps:
        if isinstance(step, Kernel):
            yield step
        elif isinstance(step, Loop):
            yield from _walk_kernels(step.body)
        else:
            yield from _walk_kernels(step.then)
            yield from _walk_kernels(step.otherwise)
