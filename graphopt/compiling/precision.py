"""The way to half precision: what a model becomes for one target before it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.verify import ReferenceFailed, reference, rounded_tolerance, rounding_cost
from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.passes.expand import Expand
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.precision import (
    BFLOAT16,
    BFLOAT16_EVERYWHERE,
    FLOAT16,
    FLOAT16_EVERYWHERE,
    LEAST_OPSET,
    RULE,
    TF32_EVERYWHERE,
    Half,
    Precision,
    factors,
)
from graphopt.rewriting import pipeline
from graphopt.rewriting.pipeline import Context, Report

if TYPE_CHECKING:
    from graphopt.backends.targets import Target

PRECISIONS: Mapping[str, Half | None] = {
    "fp32": None,
    "bf16": BFLOAT16,
    "fp16": FLOAT16,
    "tf32": TF32_EVERYWHERE,
}
"""Name -> what convolutions and products multiply, where the target gains from it; None is float32."""

ON_DEVICES: Mapping[str, Half] = {
    "bf16": BFLOAT16_EVERYWHERE,
    "fp16": FLOAT16_EVERYWHERE,
    "tf32": TF32_EVERYWHERE,
}
"""The same on GPUs."""

*_SHORT, _LAST = (name for name, half in PRECISIONS.items() if half is not None)
SHORT = f"{', '.join(_SHORT)} or {_LAST}"

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
        return bool(self.target.device) or self.target.core.half is not None

    @property
    def terms(self) -> int:
        """Products that are added up in halves at most."""
        half = self.target.core.half
        return half.terms if half is not None and half.dtype == self.dtype else 0

    @property
    def dtype(self) -> str:
        """What operands are rounded to."""
        return self.half.name

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
        return self.rounding.dtype if self.rounding and self.layers else "float32"

    def tolerance(self, variant: int, original: ir.Model, feeds: Sequence[Feeds]) -> float:
        """What rounding may cost a variant, relative to the largest result."""
        if self.rounding is None or not self.layers:
            return 0.0
        rounded, roundoff = _standard(self.models[variant]), self.rounding.half.roundoff
        return rounded_tolerance(original, rounded, self.layers, feeds, roundoff, self.rounding.terms)

    @property
    def hint(self) -> str:
        """What a user may do where results differ too much, empty where nothing was rounded to float16."""
        if not self.layers or self.precision != "float16":
            return ""
        return "; float16 ends at 65504: --keep-float leaves a node with larger activations in float32"

    @property
    def notice(self) -> str:
        """What a user is told, empty where nothing was asked for."""
        if self.rounding is None:
            return ""
        name, dtype = self.rounding.target.name, self.rounding.dtype
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
        raise GraphoptError(f"--keep-float: only with --precision {SHORT}")


def multiplying(target: Target, precision: str) -> Target:
    """A target whose kernels multiply in a precision. Raises GraphoptError where float16 or tf32 is asked of one that does not calculate
    with it; what cannot multiply bfloat16 stays float32."""
    from graphopt.backends.targets import TARGETS

    if target.device:
        return target
    if precision == "tf32":
        raise GraphoptError(f"--precision tf32: {target.name} has no tensor cores; cuda targets have")
    if precision != "fp16":
        return target
    if target.core.float16 is None:
        able = ", ".join(
            name for name, each in TARGETS.items() if each.device or each.core.float16 is not None
        )
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
    if target.device:
        half = ON_DEVICES[precision]
        seen = feeds(models[0])
        rounding = replace(rounding, half=half, too_large=too_large(models[0], seen, half.largest / HEADROOM))
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
