"""The way to half precision: what a model becomes for one target before it is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

PRECISIONS: Mapping[str, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Name -> dtype of what convolutions and products multiply, where the target gains from it."""

SHORT = " or ".join(name for name in PRECISIONS if name != "fp32")


@dataclass(frozen=True)
class Rounding:
    """Rounds operands for a target; nodes whose name or operator matches `keep_float` stay float32."""

    target: Target
    keep_float: tuple[str, ...] = ()
    dtype: str = "bfloat16"

    @property
    def terms(self) -> int:
        """Products that are added up in halves at most."""
        half = self.target.core.half
        return half.terms if half is not None and half.dtype == self.dtype else 0

    def apply(self, model: ir.Model) -> Report:
        """Change an optimised model in place."""
        from graphopt.backends.gains import gains

        rounding = Precision(self.keep_float, ir.DataType[self.dtype.upper()])
        return pipeline.run(model, [rounding], (), Context(gains=gains(self.target.core)))


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
        return self.rounding.dtype if self.rounding is not None and self.layers else PRECISIONS["fp32"]

    def tolerance(self, variant: int, original: ir.Model, feeds: Sequence[Feeds]) -> float:
        """What rounding may cost a variant, relative to the largest result."""
        if self.rounding is None or not self.layers:
            return 0.0
        Expand().apply(standard := self.models[variant].clone(), Context())
        return rounded_tolerance(original, standard, self.layers, feeds, self.rounding.terms)

    @property
    def hint(self) -> str:
        """What a user may do where results differ too much, empty where nothing was rounded to float16."""
        if self.rounding is None or not self.layers or self.rounding.dtype != "float16":
            return ""
        return "; float16 ends at 65504: --keep-float leaves a node with larger activations in float32"

    @property
    def notice(self) -> str:
        """What a user is told, empty where nothing was asked for."""
        if self.rounding is None:
            return ""
        name = self.rounding.target.name
        if self.rounding.target.core.half is None:
            return f"{name}: all of it in float32, as this target does not multiply {self.rounding.dtype}"
        count = self.layers + sum(number for (rule, _), number in self.report.refused.items() if rule == RULE)
        return f"{name}: {self.layers} of {count} convolutions and products multiply {self.rounding.dtype}"


def require_known(precision: str, keep_float: Sequence[str]) -> None:
    """Raises GraphoptError for a precision that there is not, and for exceptions from none."""
    if precision not in PRECISIONS:
        raise GraphoptError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if keep_float and precision == "fp32":
        raise GraphoptError(f"--keep-float: only with --precision {SHORT}")


def multiplying(target: Target, precision: str) -> Target:
    """A target whose kernels multiply in a precision. Raises GraphoptError where float16 is asked of one that does not calculate with
    it; what cannot multiply bfloat16 stays float32."""
    from graphopt.backends.targets import TARGETS

    if precision != "fp16":
        return target
    if target.core.float16 is None:
        able = ", ".join(name for name, each in TARGETS.items() if each.core.float16 is not None)
        raise GraphoptError(
            f"--precision fp16: {target.name} has no arithmetic on float16; these have: {able}"
        )
    return replace(target, core=replace(target.core, half=target.core.float16))


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
    rounding = Rounding(target, tuple(keep_float), PRECISIONS[precision])
    copies = [model.clone() for model in models]
    reports = [rounding.apply(copy) for copy in copies]
    return Prepared(copies, rounding, reports[0])
