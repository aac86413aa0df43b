"""The way to half precision: what a model becomes for one target before it is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.accuracy.verify import rounded_tolerance
from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.passes.expand import Expand
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.precision import LEAST_OPSET, RULE, Precision
from graphopt.rewriting import pipeline
from graphopt.rewriting.pipeline import Context, Report

if TYPE_CHECKING:
    from graphopt.backends.targets import Target

PRECISIONS: Mapping[str, str] = {"fp32": "float32", "bf16": "bfloat16"}
"""Name -> dtype of what convolutions and products multiply, where the target gains from it."""


@dataclass(frozen=True)
class Rounding:
    """Rounds operands to bfloat16 for a target; nodes whose name or operator matches `keep_float` stay float32."""

    target: Target
    keep_float: tuple[str, ...] = ()

    def apply(self, model: ir.Model) -> Report:
        """Change an optimised model in place."""
        from graphopt.backends.gains import gains

        return pipeline.run(model, [Precision(self.keep_float)], (), Context(gains=gains(self.target.core)))


@dataclass(frozen=True)
class Prepared:
    """Shape variants of a model as one target computes them."""

    models: Sequence[ir.Model]
    rounding: Rounding | None = None
    """None where everything is float32."""
    report: Report = field(default_factory=Report)
    """What was done to the first variant for this target alone."""

    @property
    def layers(self) -> int:
        """Nodes of the first variant whose operands are rounded."""
        return self.report.applied[RULE]

    @property
    def precision(self) -> str:
        """The shortest dtype that is multiplied."""
        return PRECISIONS["bf16"] if self.layers else PRECISIONS["fp32"]

    def tolerance(self, variant: int, original: ir.Model, feeds: Sequence[Feeds]) -> float:
        """What rounding may cost a variant, relative to the largest result."""
        if not self.layers:
            return 0.0
        Expand().apply(standard := self.models[variant].clone(), Context())
        return rounded_tolerance(original, standard, self.layers, feeds)

    @property
    def notice(self) -> str:
        """What a user is told, empty where nothing was asked for."""
        if self.rounding is None:
            return ""
        name = self.rounding.target.name
        if self.rounding.target.core.half is None:
            return f"{name}: all of it in float32, as this target does not multiply bfloat16"
        count = self.layers + sum(number for (rule, _), number in self.report.refused.items() if rule == RULE)
        return f"{name}: {self.layers} of {count} convolutions and products multiply bfloat16"


def require_known(precision: str, keep_float: Sequence[str]) -> None:
    """Raises GraphoptError for a precision that there is not, and for exceptions from none."""
    if precision not in PRECISIONS:
        raise GraphoptError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if keep_float and precision == "fp32":
        raise GraphoptError("--keep-float: only with --precision bf16")


def make_room(models: Sequence[ir.Model], precision: str) -> None:
    """Bring models to an opset that has the dtype. Raises ModelError where ONNX cannot convert them."""
    for model in models:
        if precision != "fp32" and model.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET:
            ConvertOpset(LEAST_OPSET).apply(model, Context())


def prepare(
    models: Sequence[ir.Model], target: Target, precision: str, keep_float: Sequence[str]
) -> Prepared:
    """Optimised models for a target; they themselves are not changed."""
    if precision == "fp32":
        return Prepared(models)
    rounding = Rounding(target, tuple(keep_float))
    copies = [model.clone() for model in models]
    reports = [rounding.apply(copy) for copy in copies]
    return Prepared(copies, rounding, reports[0])
