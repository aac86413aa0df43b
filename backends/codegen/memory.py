"""Plans the memory of a program: one arena for temporaries, reused as soon as a buffer is dead, and one weights blob.

Placement is greedy by size, largest first, at the lowest offset free during the buffer's lifetime (Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.artifacts.coding import Segment
from graphopt.backends.codegen.program import ALIGNMENT, Branch, Buffer, Kernel, Loop, Program, Role, Step


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets of temporaries in the arena and of constants in the weights blob."""

    arena: dict[Buffer, int]
    arena_bytes: int
    weights: dict[Buffer, int]
    weights_bytes: int


@dataclass
class _Lifetime:
    first: int
    last: int

    def overlaps(self, other: _Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan_memory(programs: Sequence[Program]) -> list[MemoryPlan]:
    """One plan a program (a shape variant); all share one weights blob."""
    weights, weights_bytes = _place_constants(programs)
    plans = []
    for program in programs:
        arena, arena_bytes = place_temporaries(program)
        plans.append(MemoryPlan(arena, arena_bytes, weights, weights_bytes))
    return plans


def weights_blob(plan: MemoryPlan) -> bytes:
    """The bytes of all constants at their planned offsets."""
    blob = bytearray(plan.weights_bytes)
    for buffer, offset in plan.weights.items():
        assert buffer.data is not None
        blob[offset : offset + buffer.nbytes] = np.ascontiguousarray(buffer.data).tobytes()
    return bytes(blob)


def weights_segments(plan: MemoryPlan) -> list[Segment]:
    """Where each of the constants lies."""
    places = {offset: buffer for buffer, offset in plan.weights.items()}
    return [
        Segment(offset, buffer.nbytes, np.dtype(buffer.dtype).itemsize, buffer.origin)
        for offset, buffer in sorted(places.items())
    ]


def _place_constants(programs: Sequence[Program]) -> tuple[dict[Buffer, int], int]:
    """Equal constants, as those of shape variants mostly are, share a place."""
    offsets: dict[Buffer, int] = {}
    places: dict[bytes, int] = {}
    end = 0
    for program in programs:
        for _, buffer in _touched(program.steps):
            if buffer.role is not Role.CONSTANT or buffer in offsets:
                continue
            offsets[buffer] = places.setdefault(_digest(buffer), end)
            if offsets[buffer] == end:
                end = _aligned(end + buffer.nbytes)
    return offsets, end


def _digest(buffer: Buffer) -> bytes:
    assert buffer.data is not None
    return hashlib.sha256(np.ascontiguousarray(buffer.data).reshape(-1).view(np.uint8).data).digest()


def place_temporaries(program: Program) -> tuple[dict[Buffer, int], int]:
    """Offsets in the arena, and its size."""
    lifetimes = _lifetimes(program)
    placed: list[tuple[int, int, _Lifetime]] = []
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(lifetimes, key=lambda b: -b.nbytes):
        lifetime = lifetimes[buffer]
        size = _aligned(max(buffer.nbytes, 1))
        taken = sorted((start, end) for start, end, other in placed if lifetime.overlaps(other))
        offset = _first_gap(taken, size)
        offsets[buffer] = offset
        placed.append((offset, offset + size, lifetime))
    return offsets, max((end for _, end, _ in placed), default=0)


def _first_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    offset = 0
    for start, end in taken:
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset


def _lifetimes(program: Program) -> dict[Buffer, _Lifetime]:
    """The span of steps over which each temporary is touched. What a loop touches lives as long as the whole loop."""
    lifetimes: dict[Buffer, _Lifetime] = {}
    clock = 0
    for step in program.steps:
        touched = [(clock + t, buffer) for t, buffer in _touched([step])]
        end = max((t for t, _ in touched), default=clock)
        for t, buffer in touched:
            if buffer.role is not Role.TEMPORARY:
                continue
            first, last = (clock, end) if isinstance(step, Loop) else (t, t)
            lifetime = lifetimes.setdefault(buffer, _Lifetime(first, last))
            lifetime.first, lifetime.last = min(lifetime.first, first), max(lifetime.last, last)
        clock = end + 1
    return lifetimes


def _touched(steps: Sequence[Step]) -> Iterator[tuple[int, Buffer]]:
    """Every buffer that the steps read or write, with a clock that advances from kernel to kernel.

    A loop inside a branch is a single tick, since its buffers must outlive all of its iterations.
    """
    clock = 0
    for step in steps:
        if isinstance(step, Kernel):
            for buffer in step.buffers:
                yield clock, buffer
        elif isinstance(step, Loop):
            for scalar in (step.trips, step.condition, step.counter):
                if isinstance(scalar, Buffer):
                    yield clock, scalar
            for _, buffer in _touched(step.body):
                yield clock, buffer
        elif isinstance(step, Branch):
            yield clock, step.condition
            last = clock
            for arm in (step.then, step.otherwise):
                for t, buffer in _touched(arm):
                    last = max(last, clock + 1 + t)
                    yield clock + 1 + t, buffer
            clock = last
        clock += 1


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
