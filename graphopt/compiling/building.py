"""How a model becomes what is written: it is optimised, compiled for each target, and verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.accuracy.verify import Verdict
from graphopt.arrays import Feeds
from graphopt.artifacts import artifact
from graphopt.compiling import manifest
from graphopt.compiling.fallbacks import slow_kernels
from graphopt.compiling.generating import generate, search
from graphopt.compiling.judging import require_agreement, severity, verification_feeds
from graphopt.compiling.precision import make_room, multiplying, prepare, require_known
from graphopt.compiling.presets import run_preset
from graphopt.errors import ModelError, TargetError
from graphopt.feeds.matching import match_feeds
from graphopt.model import Statistics, statistics, validate
from graphopt.model import load as load_model
from graphopt.model.variants import Binding, Sizes, Variants, make_variants
from graphopt.rewriting.pipeline import Context, Hook, Report
from graphopt.timing.tuning import Tuning

if TYPE_CHECKING:
    from graphopt.backends.compiler import Library

Model = str | Path | ir.Model | onnx.ModelProto
Progress = Callable[[str], None]

COMPILE_PRESET = "O3"


@dataclass(frozen=True)
class Options:
    """How a model is compiled; by rules unless `tuning` says where measured schedules come from."""

    dims: Mapping[str, Sizes] | None = None
    """Sizes of named dimensions, several sizes making shape variants."""
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None
    """Inputs that become constants."""
    preset: str = COMPILE_PRESET
    inputs: Sequence[Feeds] = ()
    """Real feeds to verify on besides random ones."""
    check: bool = True
    hooks: Sequence[Hook] = ()
    seed: int = 0
    profile: bool = False
    tuning: Tuning | None = None
    precision: str = "fp32"
    """Of what convolutions and products multiply, for targets that gain from it: fp32, bf16, fp16 or tf32."""
    keep_float: Sequence[str] = ()
    """Patterns of names and operators that stay float32."""
    progress: Progress = lambda stage: None

    @property
    def binding(self) -> Binding:
        """What fixes the model."""
        return Binding(self.dims or {}, self.input_shapes or {}, self.bind or {})


@dataclass(frozen=True)
class Compilation:
    """What `build` or `export` did: where the result is, and what became of the model on the way."""

    path: Path
    before: Statistics
    after: Statistics
    report: Report
    verdict: Verdict
    notices: list[str]
    kernels: int
    layers: list[dict[str, Any]]
    seconds: dict[str, float]
    weights: Path | None = None
    """Where they lie in a file of their own."""

    @property
    def bytes(self) -> int:
        """Of the artifact and weights apart from it, or of all files of an export."""
        own = [self.path] if self.weights is None else [self.path, self.weights]
        files = own if self.path.is_file() else self.path.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def integer_share(self) -> float:
        """Of all multiply-accumulates, those of integers."""
        total = sum(layer["macs"] for layer in self.layers)
        return sum(layer["macs"] for layer in self.layers if layer["integer"]) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "artifact": str(self.path),
            "weights": None if self.weights is None else str(self.weights),
            "bytes": self.bytes,
            "nodes_before": self.before.nodes,
            "nodes_after": self.after.nodes,
            "kernels": self.kernels,
            "integer_share": round(self.integer_share, 4),
            "applied": dict(self.report.applied),
            "verification": self.verdict.to_json(),
            "notices": self.notices,
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
        }


@dataclass
class Stopwatch:
    """Announces stages and keeps how long each took."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _start: float = 0.0

    def stage(self, name: str, detail: str = "") -> None:
        self.stop()
        self._stage, self._start = name, time.perf_counter()
        self.progress(detail or name)

    def stop(self) -> None:
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.perf_counter() - self._start
        self._stage = ""


@dataclass(frozen=True)
class Made:
    """What comes of a model before anything is written: a library and a build for each target."""

    variants: Variants
    before: Statistics
    report: Report
    libraries: Sequence[Library]
    builds: Sequence[artifact.Build]
    verdict: Verdict
    watch: Stopwatch

    def compilation(self, path: Path, weights: Path | None = None) -> Compilation:
        """What is told of it once it is written."""
        self.watch.stop()
        return Compilation(
            path,
            self.before,
            statistics(self.variants.models[0]),
            self.report,
            self.verdict,
            self.variants.notices,
            self.libraries[-1].kernels,
            self.libraries[-1].layers,
            self.watch.seconds,
            weights,
        )


def require_hosted(targets: str) -> None:
    """Raises TargetError for targets that have no shared libraries, and so no artifacts."""
    from graphopt.backends.targets import find_targets

    bare = [target.name for target in find_targets(targets) if not target.platform.hosted]
    if bare:
        raise TargetError(f"{', '.join(bare)}: has no shared libraries; compile with --emit static or object")


def make(model: Model, target: str, name: str, options: Options) -> Made:
    """Optimize, compile and verify a model for every target. Raises GraphoptError."""
    from graphopt.backends.targets import find_targets

    watch, tuning, seed, preset = Stopwatch(options.progress), options.tuning, options.seed, options.preset
    require_known(options.precision, options.keep_float)
    watch.stage("load")
    targets = [multiplying(one, options.precision) for one in find_targets(target)]
    variants = make_variants(read(model), options.binding)
    inputs = [match_feeds(variants.models, feeds) for feeds in options.inputs]
    before = statistics(variants.models[0])
    watch.stage("optimize")
    originals = [variant.clone() for variant in variants.models] if options.check else []
    context = Context(seed, options.progress)
    make_room(variants.models, options.precision)
    reports = [run_preset(variant, preset, options.hooks, context) for variant in variants.models]
    seen = partial(verification_feeds, inputs=inputs, seed=seed)
    libraries, builds, verdicts, notices = [], [], [], []
    for one in targets:
        prepared = prepare(variants.models, one, options.precision, options.keep_float, seen)
        done = Report([*reports[0].steps, *prepared.report.steps])
        describe = partial(manifest.describe, name, done, one, precision=prepared.precision)
        if tuning is not None and tuning.budget is not None:
            watch.stage("tune")
            search(prepared.models, one, tuning, options.progress)
        watch.stage("compile")
        libraries.append(library := generate(prepared.models, one, options.progress, options.profile, tuning))
        watch.stage("verify")
        draft = describe(library, None)
        verdicts.append(require_agreement(originals, draft, inputs, seed, one, preset, prepared))
        builds.append(describe(library, verdicts[-1]))
        notices += [prepared.notice] if prepared.notice else []
        notices += slow_kernels(library, one)
    variants = replace(variants, notices=[*variants.notices, *notices])
    return Made(variants, before, done, libraries, builds, min(verdicts, key=severity), watch)


def read(model: Model) -> ir.Model:
    """A model from a path, a protobuf message, or an IR model, which is copied. Raises ModelError if it is invalid."""
    if isinstance(model, str | Path):
        source = load_model(model)
    elif isinstance(model, ir.Model):
        source = model.clone()
    elif isinstance(model, onnx.ModelProto):
        source = ir.from_proto(model)
    else:
        raise ModelError(
            f"a model is a path, an onnx.ModelProto or an onnx_ir.Model, not {type(model).__name__}"
        )
    validate(source)
    return source
