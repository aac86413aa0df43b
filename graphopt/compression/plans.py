"""Ways to make a model smaller that can be combined, and which of two goes further."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of the multiply-adds that are left, most first."""

FLOAT_VALUES = 1 << 32
"""That weights have which are not clustered."""


@dataclass(frozen=True)
class Zeros:
    """The share of weights that become zero; a `pattern` of vectors for kernels that skip, or wherever they are missed least."""

    share: float
    pattern: str | None = None

    def __str__(self) -> str:
        where = "" if self.pattern is None else f" in {self.pattern}"
        return f"{100 * self.share:.0f} % zeros{where}"


@dataclass(frozen=True)
class Plan:
    """The share of multiply-adds that is left, zeros among the weights, a scheme of integers, clusters of weights: in this order.

    `recovered` is what learned at the end from the model as it was.
    """

    share: float = 1.0
    zeros: Zeros | None = None
    scheme: str | None = None
    clusters: int | None = None
    recovered: bool = False

    def __str__(self) -> str:
        parts = [
            "" if self.share == 1 else f"{100 * self.share:.0f} % of multiply-adds",
            "" if self.zeros is None else str(self.zeros),
            self.scheme or "",
            "" if self.clusters is None else f"{self.clusters} clusters",
            "recovered" if self.recovered else "",
        ]
        return ", ".join(part for part in parts if part) or "as it was"

    @property
    def before(self) -> Plan | None:
        """The plan without its last step; None for the model as it was."""
        plain = Plan()
        for field in reversed(fields(self)):
            usual = getattr(plain, field.name)
            if getattr(self, field.name) != usual:
                return replace(self, **{field.name: usual})
        return None

    def goes_as_far_as(self, other: Plan) -> bool:
        """Whether it does all that the other one does, or more of it: then it loses as much."""
        mine, others = self.zeros or Zeros(0), other.zeros or Zeros(0)
        return (
            self.share <= other.share
            and mine.share >= others.share
            and (others.share == 0 or mine.pattern == others.pattern)
            and other.scheme in (None, self.scheme)
            and (self.clusters or FLOAT_VALUES) <= (other.clusters or FLOAT_VALUES)
        )


WAYS = {
    "latency": (
        Plan(),
        Plan(zeros=Zeros(0.3, "16x1")),
        Plan(zeros=Zeros(0.5, "16x1")),
        Plan(scheme="int8"),
    ),
    "size": (
        *(Plan(clusters=clusters) for clusters in (64, 32, 16, 8)),
        *(Plan(zeros=Zeros(0.5), clusters=clusters) for clusters in (32, 16, 8)),
        Plan(scheme="int8"),
        *(Plan(scheme="int8", clusters=clusters) for clusters in (32, 16)),
        Plan(zeros=Zeros(0.5), scheme="int8", clusters=16),
    ),
}
"""What is combined with pruning for each objective, what goes less far first."""
