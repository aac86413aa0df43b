"""The way to half precision: what a model becomes for one target before it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphopt import pipeline
from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.passes.expand import Expand
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.precision import BFLOAT16, FLOAT16, LEAST_OPSET, RULE, Half, Precision, factors
from graphopt.pipeline import Context, Report
from graphopt.verify import ReferenceFailed, reference, rounded_tolerance, rounding_cost

if TYPE_CHECKING:
    from graphopt.backends.targets import Target

PRECISIONS: Mapping[str, Half | None] = {"fp32": None, "bf16": BFLOAT16, "fp16": FLOAT16}
"""Name -> what convolutions and products multiply, where the target gains from it; None is float32."""

HEADROOM = 4.0
"""Values seen on a few inputs may be so much larger on others."""


@dataclass(frozen=True)
class Rounding:
    """Rounds operands for a target; nodes whose name or operator matches `keep_float` stay float32, and so do those that multiply
    `too_large` values."""

    target: Target
    keep_float: tuple[str, ...] = ()
    half: Half = BFLOAT16
    too_large: frozenset[str] = frozenset()

    @property
    def is_of_use(self) -> bool:
        """Whether the target multiplies such halves."""
        return bool(self.target.device) if self.half is FLOAT16 else self.target.core.half is not None

    def apply(self, model: ir.Model) -> Report:
        """Change an optimised model in place."""
        from graphopt.backends.gains import gains

        if not self.is_of_use:
            return pipeline.run(model, [], ())
        context = Context() if self.target.device else Context(gains=gains(self.target.core))
        return pipeline.run(model, [Precision(self.keep_float, self.half, self.too_large)], (), context)


@dataclass(frozen=True)
class Prepared:
    """Shape variants of a model as one target computes them."""

    models: Sequence[ir.Model]
    rounding: Rounding | None = None
    """None where everything is float32."""
    report: Report = field(default_factory=Report)
    """What was done to the first variant for this target alone."""
    cost: float | None = None
    """By how much rounding changes results of the first variant in ONNX Runtime, relative to the largest; None where unknown."""

    @property
    def layers(self) -> int:
        """Nodes of the first variant whose operands are rounded."""
        return self.report.applied[RULE]

    @property
    def precision(self) -> str:
        """The shortest dtype that is multiplied."""
        return self.rounding.half.dtype.name.lower() if self.rounding and self.layers else "float32"

    def tolerance(self, variant: int, original: ir.Model, feeds: Sequence[Feeds]) -> float:
        """What rounding may cost a variant, relative to the largest result."""
        if self.rounding is None or not self.layers:
            return 0.0
        roundoff = self.rounding.half.roundoff
        return rounded_tolerance(original, _standard(self.models[variant]), self.layers, feeds, roundoff)

    @property
    def notice(self) -> str:
        """What a user is told, empty where nothing was asked for."""
        if self.rounding is None:
            return ""
        name, dtype = self.rounding.target.name, self.rounding.half.dtype.name.lower()
        if not self.rounding.is_of_use:
            return f"{name}: all of it in float32, as this target does not multiply {dtype}"
        reasons = {reason: number for (rule, reason), number in self.report.refused.items() if rule == RULE}
        count = self.layers + sum(reasons.values())
        told = f"{name}: {self.layers} of {count} convolutions and products multiply {dtype}"
        beyond = sum(number for reason, number in reasons.items() if reason.startswith("values beyond"))
        told += f"; {beyond} would leave its range" if beyond else ""
        return told if self.cost is None else f"{told}; in ONNX Runtime that costs {self.cost:.1g}"


def require_known(precision: str, keep_float: Sequence[str]) -> None:
    """Raises GraphoptError for a precision that there is not, and for exceptions from none."""
    if precision not in PRECISIONS:
        raise GraphoptError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if keep_float and precision == "fp32":
        raise GraphoptError("--keep-float: only with --precision bf16 or fp16")


def make_room(models: Sequence[ir.Model], precision: str) -> None:
    """Bring models to an opset that has the dtype. Raises ModelError where ONNX cannot convert them."""
    for model in models:
        if precision != "fp32" and model.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET:
            ConvertOpset(LEAST_OPSET).apply(model, Context())


def prepare(
    models: Sequence[ir.Model],
    target: Target,
    precision: str,
    keep_float: Sequence[str],
    feeds: Callable[[ir.Model], Sequence[Feeds]] = lambda model: (),
) -> Prepared:
    """Optimised models for a target; they themselves are not changed. `feeds` gives inputs that tell how large values become."""
    half = PRECISIONS[precision]
    if half is None:
        return Prepared(models)
    rounding = Rounding(target, tuple(keep_float), half)
    seen: Sequence[Feeds] = ()
    if half is FLOAT16 and rounding.is_of_use:
        seen = feeds(models[0])
        rounding = replace(rounding, too_large=too_large(models[0], seen, half.largest / HEADROOM))
    copies = [model.clone() for model in models]
    reports = [rounding.apply(copy) for copy in copies]
    cost = rounding_cost(_standard(models[0]), _standard(copies[0]), seen) if seen else None
    return Prepared(copies, rounding, reports[0], cost)


def too_large(model: ir.Model, feeds: Sequence[Feeds], limit: float) -> frozenset[str]:
    """The values that a model multiplies whose magnitudes exceed a limit, or are no numbers, in ONNX Runtime."""
    watched = model.clone()
    values = [value for value in factors(watched) if not (value.is_graph_input() or value.is_graph_output())]
    watched.graph.outputs.extend(values)
    names = {value.name or "" for value in factors(model)}
    try:
        run = reference(_standard(watched))
        found = [(name, array) for each in feeds for name, array in {**each, **run(each)}.items()]
    except ReferenceFailed:
        return frozenset()
    return frozenset(
        name for name, array in found if name in names and array.size and not np.abs(array).max() <= limit
    )


def _standard(model: ir.Model) -> ir.Model:
    """A copy in operators that any runtime reads."""
    Expand().apply(standard := model.clone(), Context())
    return standard
