"""Numerical equivalence with ONNX Runtime, the reference that everything is compared with.

A float result passes if ``max|a - b| / max|b|`` stays under the tolerance of its dtype or, where that is
larger, under three times the difference between ONNX Runtime's own optimised and unoptimised runs of the same
model. What a model computes in half precision has the tolerance of half precision, whatever it is converted to; what is
compiled to multiply halves in a float32 model that of ``rounded_tolerance``.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.accuracy.comparison import (
    SELF_DIFFERENCE_FACTOR,
    TOLERANCES,
    Comparison,
    compare_output,
    describe,
)
from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.model import edit, proto, save
from graphopt.model.writing import PROTOBUF_LIMIT

HALF_PRECISION = {"FLOAT16": np.dtype(np.float16), "BFLOAT16": np.dtype(ml_dtypes.bfloat16)}

DEVIATIONS = 4.0

Runner = Callable[[Feeds], Mapping[str, Any]]


class ReferenceFailed(GraphoptError):
    """ONNX Runtime cannot load or run the model, so there is nothing to compare with."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a verification.

    ``outputs`` holds the worst comparison of each output, ``self_difference`` what the reference differs from
    itself, ``not_verified`` why nothing could be compared (empty if it could), ``where`` the code ran, if not here as it is.
    """

    outputs: tuple[Comparison, ...] = ()
    self_difference: float = 0.0
    not_verified: str = ""
    where: str = ""

    @property
    def passed(self) -> bool:
        """True if everything compared was within tolerance and something was compared."""
        return self.verified and all(output.passed for output in self.outputs)

    @property
    def verified(self) -> bool:
        return not self.not_verified

    @property
    def max_rel_err(self) -> float:
        return max((output.max_rel_err for output in self.outputs if not output.in_steps), default=0.0)

    @property
    def max_steps(self) -> float | None:
        """Quantisation steps by which integers differ; None where none were counted."""
        return max((output.max_abs_err for output in self.outputs if output.in_steps), default=None)

    @property
    def max_abs_err(self) -> float:
        return max((output.max_abs_err for output in self.outputs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """For manifests and ``--json``: plain types only."""
        if self.not_verified:
            return {"verified": False, "reason": self.not_verified}
        return {
            "verified": True,
            "passed": self.passed,
            "where": self.where,
            "max_abs_err": self.max_abs_err,
            "max_rel_err": self.max_rel_err,
            "max_steps": self.max_steps,
            "self_difference": self.self_difference,
            "outputs": {output.name: output.max_rel_err for output in self.outputs},
        }

    def __str__(self) -> str:
        if self.not_verified:
            return f"not verified: {self.not_verified}"
        failed = [output for output in self.outputs if not output.passed]
        if not failed and self.max_steps is not None:
            return f"{len(self.outputs)} values compared operator by operator, {self.max_steps:g} quantisation step(s) apart"
        if not failed:
            own = f"the reference differs from itself by {self.self_difference:.2g}"
            where = f" {self.where}" if self.where else ""
            return f"max_rel_err {self.max_rel_err:.2g}{where} ({own})"
        return "; ".join(describe(output) for output in failed)


def verify(model: ir.Model | Path, run: Runner, feeds: Iterable[Feeds], allowed: float = 0.0) -> Verdict:
    """Compare ``run`` with ONNX Runtime (graph optimisation off) on every feed.

    ``run`` takes feeds by input name and returns outputs by name; floats may differ by ``allowed`` at least. A model that ONNX Runtime cannot run gives
    a verdict with ``not_verified`` set; an exception of ``run`` is passed on.
    """
    try:
        plain, optimised = reference(model), reference(model, optimised=True)
        cases = [(feed, plain(feed)) for feed in feeds]
        own = max((self_difference(expected, optimised(feed)) for feed, expected in cases), default=0.0)
    except ReferenceFailed as error:
        return Verdict(not_verified=str(error))
    if not cases:
        return Verdict(not_verified="there are no inputs to compare with")
    least = max(allowed, coarsest_tolerance(model) if isinstance(model, ir.Model) else 0.0)
    return worst([compare(expected, run(feed), own, least) for feed, expected in cases])


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """For each output its worst comparison."""
    columns = zip(*(verdict.outputs for verdict in verdicts), strict=True)
    outputs = (max(column, key=lambda output: output.max_rel_err) for column in columns)
    return Verdict(tuple(outputs), max(verdict.self_difference for verdict in verdicts))


def coarsest_tolerance(model: ir.Model) -> float:
    """The tolerance of the shortest float dtype that the model computes anywhere."""
    found = {value.dtype for node in edit.nodes(model.graph) for value in node.outputs} - {None}
    names = {dtype.name for dtype in found if dtype is not None}
    return max((TOLERANCES[HALF_PRECISION[name]] for name in names & HALF_PRECISION.keys()), default=0.0)


def rounded_tolerance(
    model: ir.Model,
    rounded: ir.Model,
    layers: int,
    feeds: Iterable[Feeds],
    roundoff: float,
    terms: int = 0,
) -> float:
    """The tolerance for a float32 model of which ``layers`` nodes multiply operands rounded to halves, as in ``rounded``, with
    float32 sums, or with sums of up to ``terms`` products in float16.

    Either operand of a product is off by some roundoff u. The errors of a sum's products are independent, so the
    sum is off by about u * sqrt(2) of what it amounts to. Adding n terms in float16 costs u * sqrt(n / 2) more, and layers in a row add
    up as the root of their number. ``DEVIATIONS`` such standard deviations are allowed or, where that is larger, three times what the
    same rounding costs in ONNX Runtime.
    """
    if not layers:
        return 0.0
    expected_of = float(DEVIATIONS * roundoff * np.sqrt((2 + terms / 2) * layers))
    cost = rounding_cost(model, rounded, feeds)
    return expected_of if cost is None else max(expected_of, SELF_DIFFERENCE_FACTOR * cost)


def rounding_cost(model: ir.Model, rounded: ir.Model, feeds: Iterable[Feeds]) -> float | None:
    """By how much results of ``rounded`` differ in ONNX Runtime, relative to the largest; None where it cannot run them."""
    try:
        plain, other = reference(model), reference(rounded)
        return max((self_difference(plain(feed), other(feed)) for feed in feeds), default=0.0)
    except ReferenceFailed:
        return None


def compare(
    expected: Mapping[str, Any], actual: Mapping[str, Any], own: float = 0.0, least: float = 0.0
) -> Verdict:
    """Compare outputs by name; ``own`` is what the reference differs from itself, ``least`` a tolerance for floats."""
    outputs = (compare_output(name, value, actual.get(name), own, least) for name, value in expected.items())
    return Verdict(tuple(outputs), own)


def self_difference(plain: Mapping[str, Any], optimised: Mapping[str, Any]) -> float:
    """The largest finite relative difference between two runs of the reference."""
    errors = (output.max_rel_err for output in compare(plain, optimised).outputs)
    return max((error for error in errors if np.isfinite(error)), default=0.0)


def reference(model: ir.Model | Path, *, optimised: bool = False, threads: int = 0) -> Runner:
    """ONNX Runtime on the CPU, graph optimisation off unless asked for. Raises ReferenceFailed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = _guarded(lambda: _session(model, options))
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Feeds) -> dict[str, Any]:
        return dict(zip(names, _guarded(lambda: session.run(None, dict(feeds))), strict=True))

    return run


def _session(model: ir.Model | Path, options: Any) -> Any:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if not isinstance(model, ir.Model):
        return onnxruntime.InferenceSession(model, options, providers)
    if _fits_in_memory(model):
        return onnxruntime.InferenceSession(proto(model).SerializeToString(), options, providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        return onnxruntime.InferenceSession(path, options, providers)


def _fits_in_memory(model: ir.Model) -> bool:
    """Whether one protobuf message can hold the model: nothing in files of its own, and not too large."""
    tensors = [
        value.const_value
        for graph in edit.graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    inside = not any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    return inside and sum(edit.byte_size(tensor) for tensor in tensors) <= PROTOBUF_LIMIT


def _guarded(call: Callable[[], Any]) -> Any:
    """ONNX Runtime raises a family of unrelated exceptions; turn them into one."""
    try:
        return call()
    except Exception as error:
        raise ReferenceFailed(f"ONNX Runtime: {error}") from error
