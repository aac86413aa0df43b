"""Where zeros may lie: anywhere, in vectors of outputs that meet one input, or a fixed number in every few rows.

Scores and masks have the form of a layer's matrices, `[groups, rows, outputs]`; a mask is true where a weight is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphopt.errors import GraphoptError

LEAST_RATIO, MOST_RATIO = 0.0, 1.0
"""Between which a ratio lies: with the one nothing happens, with the other nothing is left."""

VECTORS, GROUPS = re.compile(r"([0-9]{1,4})x1"), re.compile(r"([0-9]{1,4}):([0-9]{1,4})")


@dataclass(frozen=True)
class Share:
    """The share `ratio` of the weights is zero, in vectors of `outputs` weights that meet one input."""

    ratio: float
    outputs: int = 1

    def __post_init__(self) -> None:
        if not LEAST_RATIO < self.ratio < MOST_RATIO:
            raise GraphoptError(f"a ratio of {self.ratio} zeros: it lies between 0 and 1, both excluded")
        if self.outputs < 1:
            raise GraphoptError(
                f"vectors of {self.outputs} weights are none; 16x1 has 16 outputs and one input"
            )

    def steps(self, count: int) -> list[Pattern]:
        """Patterns that lead to this one, with more zeros each time, by less and less."""
        return [
            replace(self, ratio=self.ratio * (1 - (1 - step / count) ** 2)) for step in range(1, count + 1)
        ]

    def keep(self, scores: np.ndarray) -> np.ndarray:
        """The mask of one layer."""
        return self.keep_best([scores])[0]

    def keep_best(self, layers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The masks of layers that share one ratio; their scores can be compared."""
        means = [self._means(scores) for scores in layers]
        every = np.concatenate([each.reshape(-1) for each in means])
        kept = np.ones(every.shape, bool)
        kept[np.argsort(every, kind="stable")[: int(self.ratio * len(every))]] = False
        ends = np.cumsum([each.size for each in means])[:-1]
        return [
            np.repeat(part.reshape(mean.shape), self.outputs, axis=-1)[..., : scores.shape[-1]]
            for part, mean, scores in zip(np.split(kept, ends), means, layers, strict=True)
        ]

    def _means(self, scores: np.ndarray) -> np.ndarray:
        """The mean score of every vector; the last of a row may be shorter."""
        starts = np.arange(0, scores.shape[-1], self.outputs)
        lengths = np.diff([*starts, scores.shape[-1]])
        return np.asarray(np.add.reduceat(scores, starts, axis=-1) / lengths)


@dataclass(frozen=True)
class FewOfEach:
    """`kept` of every `rows` weights of an output that follow one another are not zero; what is left over at the end is kept."""

    kept: int
    rows: int

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.rows:
            raise GraphoptError(
                f"{self.kept}:{self.rows} is no pattern: the first number lies between 0 and the second"
            )

    def steps(self, count: int) -> list[Pattern]:
        """Patterns that lead to this one, at most `count`, with more zeros each time."""
        most = min(self.rows - 1, self.kept + count - 1)
        return [FewOfEach(kept, self.rows) for kept in range(most, self.kept - 1, -1)]

    def keep(self, scores: np.ndarray) -> np.ndarray:
        """The mask of one layer."""
        groups, rows, outputs = scores.shape
        whole = rows - rows % self.rows
        parts = scores[:, :whole].reshape(groups, -1, self.rows, outputs)
        places = np.argsort(np.argsort(-parts, axis=2, kind="stable"), axis=2, kind="stable")
        mask = np.ones(scores.shape, bool)
        mask[:, :whole] = (places < self.kept).reshape(groups, whole, outputs)
        return mask


Pattern = Share | FewOfEach


def find_pattern(text: str | None, ratio: float | None) -> Pattern:
    """The pattern of `2:4`, or of a ratio with or without `16x1`. Raises GraphoptError for anything else."""
    if groups := GROUPS.fullmatch(text or ""):
        if ratio is not None:
            raise GraphoptError(f"the pattern {text} says how many zeros there are; leave the ratio out")
        return FewOfEach(int(groups[1]), int(groups[2]))
    if ratio is None:
        raise GraphoptError("say how many weights become zero: a ratio such as 0.5, or the pattern 2:4")
    if text is None:
        return Share(ratio)
    if vectors := VECTORS.fullmatch(text):
        return Share(ratio, int(vectors[1]))
    raise GraphoptError(
        f"unknown pattern {text!r}: 2:4 keeps two of four inputs, 16x1 zeroes 16 outputs at once"
    )
