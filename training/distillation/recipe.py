"""What a student learns, and how long and how boldly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from graphopt.errors import GraphoptError

AUTO = "auto"

KINDS = (AUTO, "classes", "tokens", "embedding", "regression")
"""What an output says: scores of classes, the same at every position, a direction, or numbers."""

RATE, RATE_ALONE = 3e-4, 1e-3
"""Highest learning rates: of students, most of which were made of their teacher, and of those that have none."""

AUGMENTATIONS = ("shift", "flip", "mix")
"""What is done to images: moved by a few pixels, mirrored, blended with one another."""


@dataclass(frozen=True)
class Goal:
    """What is learned.

    `kind` is that of the first output; soft labels are classes at `temperature`. With `labels` those of the data count as well,
    with the share `alpha`. `features` maps values of the student to values of the teacher that they should be like; None
    matches them by name. They count `feature_weight` times as much as an output. Raises GraphoptError for numbers out of range.
    """

    kind: str = AUTO
    temperature: float = 2.0
    labels: bool = False
    alpha: float = 0.5
    features: Mapping[str, str] | None = field(default_factory=dict)
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        _require_known("loss", self.kind, KINDS)
        _require(self.temperature > 0, f"a temperature of {self.temperature:g} is not above 0")
        _require(0 <= self.alpha <= 1, f"a share of {self.alpha:g} for labels is not within 0 .. 1")
        _require(self.feature_weight > 0, f"a weight of {self.feature_weight:g} for features is not above 0")

    @property
    def hard(self) -> float:
        """The share of labels."""
        return self.alpha if self.labels else 0.0


@dataclass(frozen=True)
class Plan:
    """How it is learned: for `epochs`, or for `minutes`, in batches of samples that nobody but `seed` chooses.

    `rate` is the highest learning rate of AdamW; weights shrink by `decay`, and are drawn to where they started by `stay`.
    `augment` names what is done to images, None what suits them. `freeze_statistics` keeps the running statistics of batch
    normalisations and uses them. In the share `blocks` of the time blocks learn one after the other. `patience` is the number of rounds without gain after which it ends. Raises GraphoptError
    for numbers out of range.
    """

    epochs: int | None = None
    minutes: float | None = None
    batch: int = 64
    rate: float = RATE
    decay: float = 0.0
    stay: float = 0.0
    augment: tuple[str, ...] | None = None
    freeze_statistics: bool = False
    blocks: float = 0.0
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        one = (self.epochs is None) != (self.minutes is None)
        _require(one, "give either a number of epochs or minutes, how long to learn")
        _require(self.epochs is None or self.epochs >= 1, f"{self.epochs} epochs are none")
        _require(self.minutes is None or self.minutes > 0, f"{self.minutes} minutes are none")
        _require(self.batch >= 1, f"a batch of {self.batch} samples is none")
        _require(self.rate > 0, f"a learning rate of {self.rate:g} is not above 0")
        _require(self.decay >= 0, f"a weight decay of {self.decay:g} is below 0")
        _require(self.stay >= 0, f"a pull of {self.stay:g} to the start is below 0")
        _require(
            0 <= self.blocks < 1, f"a share of {self.blocks:g} of the time for blocks is not within 0 .. 1"
        )
        _require(self.patience is None or self.patience >= 1, f"a patience of {self.patience} rounds is none")
        for name in self.augment or ():
            _require_known("augmentation", name, AUGMENTATIONS)

    @property
    def course(self) -> tuple[object, ...]:
        """What may not change when learning goes on where it was left."""
        return self.batch, self.decay, self.stay, self.augment, self.freeze_statistics, self.blocks, self.seed


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GraphoptError(message)


def _require_known(what: str, name: str, known: Collection[str]) -> None:
    _require(name in known, f"unknown {what} {name!r}; choose one of {', '.join(known)}")
