"""Which techniques of a lossy change are kept: each is tried on top of those before it, and stays where the outputs lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphopt.accuracy.evaluation import Judge

MEASURED = 64
"""Samples on which single techniques are judged."""


@dataclass(frozen=True)
class Gain:
    """The quality of the output before and after a technique, in dB; it was kept if it lost nothing."""

    technique: str
    before: float
    after: float

    @property
    def kept(self) -> bool:
        return self.after >= self.before

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**vars(self), "kept": self.kept}


def try_techniques(
    techniques: Sequence[str], make: Callable[[Sequence[str]], ir.Model], judge: Judge
) -> list[Gain]:
    """What each technique gains on top of those before it that were kept; `make` gives the model with some of them."""
    if not techniques:
        return []
    kept: list[str] = []
    gains: list[Gain] = []
    quality = judge.judge(make(kept)).sqnr_db
    for technique in techniques:
        gain = Gain(technique, quality, judge.judge(make([*kept, technique])).sqnr_db)
        gains.append(gain)
        if gain.kept:
            kept.append(technique)
            quality = gain.after
    return gains
