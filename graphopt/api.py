"""What graphopt does for a user: compile, optimize, compare, load. Each function reads as a table of contents."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from graphopt import artifact, bench, manifest
from graphopt.arrays import Feeds
from graphopt.departures import Departures, departures, expose_tensors
from graphopt.errors import ModelError, VerificationError
from graphopt.generating import generate, search
from graphopt.judging import (
    blame_pass,
    require_agreement,
    severity,
    unchecked,
    verification_feeds,
    verify_rewrite,
)
from graphopt.layers import LayerTimes, beside_peer, measure_layers
from graphopt.matching import match_feeds
from graphopt.measuring import OURS, loader, reference_outputs
from graphopt.model import Statistics, bind_dims, frozen_notice, normalise, save, statistics, validate
from graphopt.model import load as load_model
from graphopt.pipeline import Context, Hook, Report
from graphopt.presets import run_preset
from graphopt.random_feeds import random_feeds
from graphopt.tuning import Tuning, TuningReport
from graphopt.variants import Binding, Sizes, make_variants
from graphopt.verify import Verdict

if TYPE_CHECKING:
    from graphopt.bench import Benchmark, Schedule
    from graphopt_runtime import CompiledModel

Model = str | Path | ir.Model | onnx.ModelProto
Progress = Callable[[str], None]

COMPILE_PRESET = "O3"
OPTIMIZE_PRESET = "O2"


@dataclass(frozen=True)
class Compilation:
    """What `build` did: where the artifact is, and what became of the model on the way."""

    path: Path
    before: Statistics
    after: Statistics
    report: Report
    verdict: Verdict
    notices: list[str]
    kernels: int
    layers: list[dict[str, Any]]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "artifact": str(self.path),
            "bytes": self.path.stat().st_size,
            "nodes_before": self.before.nodes,
            "nodes_after": self.after.nodes,
            "kernels": self.kernels,
            "applied": dict(self.report.applied),
            "verification": self.verdict.to_json(),
            "notices": self.notices,
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
        }


@dataclass(frozen=True)
class Optimization:
    """What `optimize` did to a model."""

    model: ir.Model
    before: Statistics
    after: Statistics
    report: Report
    verdict: Verdict
    notices: list[str]


@dataclass
class _Stopwatch:
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


def compile(
    model: Model,
    target: str = "native",
    *,
    output: str | Path | None = None,
    threads: int | None = None,
    **options: Any,
) -> CompiledModel:
    """Compile an ONNX model and load the result: `graphopt.compile("model.onnx")(x)`.

    `options` are those of `build`. With `output` the artifact is kept there. Raises GraphoptError.
    """
    if output is not None:
        return load(build(model, output, target, **options).path, threads)
    with tempfile.TemporaryDirectory() as folder:
        return load(build(model, Path(folder) / "model.gopt", target, **options).path, threads)


def build(
    model: Model,
    output: str | Path,
    target: str = "native",
    *,
    dims: Mapping[str, Sizes] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None,
    preset: str = COMPILE_PRESET,
    inputs: Sequence[Feeds] = (),
    check: bool = True,
    hooks: Sequence[Hook] = (),
    seed: int = 0,
    profile: bool = False,
    tuning: Tuning | None = None,
    progress: Progress = lambda stage: None,
) -> Compilation:
    """Compile an ONNX model into an artifact, verified against ONNX Runtime before it is written.

    `dims` gives sizes to named dimensions, several sizes making shape variants; `bind` turns inputs into constants;
    `inputs` are real feeds to verify on besides random ones; `tuning` says where measured schedules come from, rules
    choosing them without. Several targets, separated by commas, give one artifact that runs the best of them. Raises
    GraphoptError; nothing is written then.
    """
    from graphopt.backends.targets import find_targets

    watch = _Stopwatch(progress)
    watch.stage("load")
    targets = find_targets(target)
    variants = make_variants(read(model), Binding(dims or {}, input_shapes or {}, bind or {}))
    inputs = [match_feeds(variants.models, feeds) for feeds in inputs]
    before = statistics(variants.models[0])
    watch.stage("optimize")
    originals = [variant.clone() for variant in variants.models] if check else []
    reports = [run_preset(variant, preset, hooks, Context(seed, progress)) for variant in variants.models]
    describe = partial(manifest.describe, Path(output).stem, reports[0])
    builds, verdicts = [], []
    for one in targets:
        if tuning is not None and tuning.budget is not None:
            watch.stage("tune")
            search(variants.models, one, tuning, progress)
        watch.stage("compile")
        library = generate(variants.models, one, progress, profile, tuning)
        watch.stage("verify")
        verdicts.append(require_agreement(originals, describe(one, library, None), inputs, seed, one, preset))
        builds.append(describe(one, library, verdicts[-1]))
    watch.stage("write")
    artifact.write(output, builds)
    watch.stop()
    return Compilation(
        Path(output),
        before,
        statistics(variants.models[0]),
        reports[0],
        min(verdicts, key=severity),
        variants.notices,
        library.kernels,
        library.layers,
        watch.seconds,
    )


def tune(
    model: Model,
    tuning: Tuning,
    target: str = "native",
    *,
    dims: Mapping[str, Sizes] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None,
    preset: str = COMPILE_PRESET,
    progress: Progress = lambda stage: None,
) -> TuningReport:
    """Measure schedules for the kernels of a model and keep them in the database, from which `build` takes them.

    Raises GraphoptError.
    """
    from graphopt.backends.targets import find_target

    progress("optimize")
    variants = make_variants(read(model), Binding(dims or {}, input_shapes or {}, bind or {}))
    for variant in variants.models:
        run_preset(variant, preset, (), Context(0, progress))
    progress("tune")
    return search(variants.models, find_target(target), tuning, progress)


def optimize(
    model: Model,
    output: str | Path | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    preset: str = OPTIMIZE_PRESET,
    inputs: Sequence[Feeds] = (),
    check: bool = True,
    hooks: Sequence[Hook] = (),
    seed: int = 0,
    progress: Progress = lambda stage: None,
) -> Optimization:
    """Rewrite an ONNX model into a smaller equivalent one, verified against the original before it is saved.

    Raises GraphoptError; nothing is written then. A model that ONNX Runtime cannot run is saved, and its verdict says that
    it was not verified.
    """
    progress("load")
    source = read(model)
    bind_dims(source, dims or {}, input_shapes or {})
    inputs = [match_feeds([source], feeds) for feeds in inputs]
    original = source.clone() if check else None
    progress("optimize")
    notices = frozen_notice(normalise(source))
    before = statistics(source)
    report = run_preset(source, preset, hooks, Context(seed, progress))
    verdict = unchecked()
    if original is not None:
        progress("verify")
        verdict = verify_rewrite(original, source, inputs, seed)
    if original is not None and verdict.verified and not verdict.passed:
        blame_pass(original, preset, verification_feeds(original, inputs, seed)[0], seed)
        raise VerificationError(f"the optimized model differs from the original: {verdict}")
    if output is not None:
        save(source, output)
    return Optimization(source, before, statistics(source), report, verdict, notices)


def compare(
    model: Model,
    backends: Mapping[str, Path | None],
    *,
    target: str = "native",
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None,
    feeds: Feeds | None = None,
    threads: int | None = None,
    schedule: Schedule | None = None,
    progress: Progress = lambda stage: None,
) -> Benchmark:
    """Run one model on several backends, interleaved, each in its own process, all with the same number of threads.

    `backends` maps a name to the file that backend is to run, None for `model` itself; graphopt compiles an ONNX file
    first. Outputs are compared with ONNX Runtime's, graph optimisation off. Raises GraphoptError for what concerns all
    backends; the error of a single one is its result.
    """
    threads = threads or bench.default_threads()
    bound, feeds = _bound(model, Binding(dims or {}, input_shapes or {}, bind or {}), feeds)
    with tempfile.TemporaryDirectory() as folder:
        save(bound, fixed := Path(folder) / "fixed.onnx")

        def find(name: str, backend: str) -> Path:
            path = backends[name]
            if backend != OURS or (path is not None and path.suffix == ".gopt"):
                return path or fixed
            fixes: dict[str, Any] = (
                {} if path is None else {"dims": dims, "input_shapes": input_shapes, "bind": bind}
            )
            compiled = Path(folder) / f"{list(backends).index(name)}.gopt"
            return build(path or fixed, compiled, target, check=False, progress=progress, **fixes).path

        loaders = {name: loader(name, threads, partial(find, name)) for name in backends}
        expected = reference_outputs(fixed, feeds)
        progress("measure")
        name = str(model) if isinstance(model, str | Path) else model.graph.name or "model"
        return bench.measure(name, loaders, feeds, threads=threads, expected=expected, schedule=schedule)


def compare_tensors(
    model: str | Path,
    backends: Iterable[str],
    binding: Binding,
    **options: Any,
) -> Departures:
    """Where the backends depart from ONNX Runtime, graph optimisation off: every tensor between two nodes is compared.

    For this all of them become outputs, which ends what a backend fuses. `options` are those of `compare`. Raises
    GraphoptError for what concerns all backends.
    """
    bound = make_variants(read(model), binding).models[0]
    once = bench.Schedule(runs=1, blocks=1, warmup=0)
    measured = compare(expose_tensors(bound), dict.fromkeys(backends), schedule=once, **options)
    return departures(str(model), bound, measured)


def profile(
    model: str | Path,
    *,
    target: str = "native",
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None,
    feeds: Feeds | None = None,
    threads: int | None = None,
    runs: int = 20,
    progress: Progress = lambda stage: None,
) -> LayerTimes:
    """The time of every kernel of an ONNX model, next to ONNX Runtime's profile and the peak of this machine.

    Raises GraphoptError.
    """
    from graphopt.backends.peak import measure_peak
    from graphopt.backends.peers import onnxruntime_profile
    from graphopt.backends.targets import native

    threads = threads or bench.default_threads()
    bound, feeds = _bound(model, Binding(dims or {}, input_shapes or {}, bind or {}), feeds)
    with tempfile.TemporaryDirectory() as folder:
        save(bound, fixed := Path(folder) / "fixed.onnx")
        made = build(fixed, Path(folder) / "model.gopt", target, check=False, profile=True, progress=progress)
        progress("measure")
        with load(made.path, threads) as compiled:
            layers = measure_layers(compiled, feeds, runs)
        nodes = onnxruntime_profile.profile(fixed, feeds, threads, runs)
    peak = measure_peak(threads, native().lanes)
    total = sum(node.ms for node in nodes)
    return LayerTimes(str(model), threads, runs, beside_peer(layers, nodes), peak, total)


def load(path: str | Path, threads: int | None = None, verify: bool = True) -> CompiledModel:
    """Load a compiled artifact. This runs code from the file: load only artifacts that you trust."""
    import graphopt_runtime

    return graphopt_runtime.load(path, threads=threads, verify=verify)


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


def _bound(model: Model, binding: Binding, feeds: Feeds | None) -> tuple[ir.Model, Feeds]:
    """The first variant of a model, and the feeds to measure it on."""
    bound = make_variants(read(model), binding).models[0]
    return bound, random_feeds(bound) if feeds is None else match_feeds([bound], feeds)
