"""What the search and the process that measures say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FLUSH = 0
"""Variant of the program that reads as much memory as the rest of a model would."""


@dataclass(frozen=True)
class Built:
    """A library of programs: variant 0 empties the caches, variant i + 1 is candidate i, of whose workload it does `shares[i]`
    of the work. Sizes are in bytes. Of one for a GPU the dtype of `results` is known, which all candidates compute alike."""

    path: Path
    inputs: list[list[int]]
    outputs: list[list[int]]
    weights: int
    shares: list[float]
    results: str = ""


@dataclass(frozen=True)
class Request:
    """Pairs of variants to time, a candidate and its reference each."""

    built: Built
    pairs: list[tuple[int, int]]
    threads: int


@dataclass(frozen=True)
class Answer:
    """Microseconds, medians of runs that took turns."""

    candidate: float
    reference: float
