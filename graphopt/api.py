"""What graphopt does for a user: compile, optimize, compare, load. Each function reads as a table of contents."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.verify import Verdict
from graphopt.arrays import Feeds
from graphopt.artifacts import artifact
from graphopt.compiling.building import (
    COMPILE_PRESET,
    Compilation,
    Model,
    Options,
    Progress,
    make,
    read,
    require_hosted,
)
from graphopt.compiling.generating import search
from graphopt.compiling.judging import (
    blame_pass,
    unchecked,
    verification_feeds,
    verify_rewrite,
)
from graphopt.compiling.precision import make_room, multiplying, prepare, require_known
from graphopt.compiling.presets import run_preset
from graphopt.errors import GraphoptError, TargetError, VerificationError
from graphopt.feeds.matching import match_feeds
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import Statistics, bind_dims, frozen_notice, normalise, save, statistics
from graphopt.model.variants import Binding, Sizes, make_variants
from graphopt.rewriting.pipeline import Context, Hook, Report
from graphopt.timing import bench
from graphopt.timing.departures import Departures, departures, expose_tensors
from graphopt.timing.layers import LayerTimes, beside_peer, measure_layers
from graphopt.timing.measuring import OURS, loader, reference_outputs
from graphopt.timing.tuning import Tuning, TuningReport

if TYPE_CHECKING:
    from graphopt.timing.bench import Benchmark, Schedule
    from graphopt_runtime import CompiledModel

OPTIMIZE_PRESET = "O2"


@dataclass(frozen=True)
class Optimization:
    """What `optimize` did to a model."""

    model: ir.Model
    before: Statistics
    after: Statistics
    report: Report
    verdict: Verdict
    notices: list[str]


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
    separate_weights: bool = False,
    **options: Any,
) -> Compilation:
    """Compile an ONNX model into an artifact, verified against ONNX Runtime before it is written.

    `options` are those of `building.Options`. Several targets, separated by commas, give one artifact that runs the best of
    them. Separate weights are in `OUTPUT.weights`, so that program and weights can travel apart. Raises GraphoptError; nothing
    is written then.
    """
    require_hosted(target)
    made = make(model, target, Path(output).stem, Options(**options))
    made.watch.stage("write")
    artifact.write(output, made.builds, separate_weights)
    return made.compilation(Path(output), artifact.weights_path(Path(output)) if separate_weights else None)


def export(
    model: Model,
    folder: str | Path,
    target: str = "native",
    *,
    kind: str = "static",
    name: str | None = None,
    embed_weights: bool = True,
    single_thread: bool = False,
    **options: Any,
) -> Compilation:
    """Compile an ONNX model into a library for C and C++ builds, with all that a build needs around it, below `folder`.

    `kind` is `static`, `library` (a shared one), `object`, or `c-header` for the headers alone; `name` is that of the model in
    C, by default that of its file. `options` are those of `build`. Raises GraphoptError; nothing is written then.
    """
    from graphopt.backends.export.emit import KINDS, Export, emit
    from graphopt.backends.export.interface import identifier
    from graphopt.backends.targets import find_target

    one, given = find_target(target), name or (Path(model).stem if isinstance(model, str | Path) else "model")
    c_name = identifier(given)
    if name is not None and c_name != name:
        raise GraphoptError(f"{name!r} is no name in C; {c_name!r} would be one")
    if kind not in KINDS:
        raise GraphoptError(f"{kind!r} is no kind of export; choose one of {', '.join(KINDS)}")
    if one.device:
        raise TargetError(f"{one.name}: models for a GPU cannot be exported yet; compile an artifact")
    if not one.platform.hosted and kind == "library":
        raise TargetError(f"{one.name} has no shared libraries; give static or object")
    made = make(model, one.name, c_name, Options(**options))
    made.watch.stage("write")
    [library] = made.libraries
    exported = Export(library, c_name, one, kind, embed_weights, single_thread)
    emit(exported, Path(folder))
    return made.compilation(Path(folder), None if embed_weights else Path(folder, exported.weights_file))


def tune(
    model: Model,
    tuning: Tuning,
    target: str = "native",
    *,
    dims: Mapping[str, Sizes] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    bind: Mapping[str, np.ndarray[Any, Any]] | None = None,
    preset: str = COMPILE_PRESET,
    precision: str = "fp32",
    keep_float: Sequence[str] = (),
    progress: Progress = lambda stage: None,
) -> TuningReport:
    """Measure schedules for the kernels of a model and keep them in the database, from which `build` takes them.

    `precision` and `keep_float` are those with which the model will be built. Raises GraphoptError.
    """
    from graphopt.backends.targets import find_target

    require_known(precision, keep_float)
    progress("optimize")
    one = multiplying(find_target(target), precision)
    variants = make_variants(read(model), Binding(dims or {}, input_shapes or {}, bind or {}))
    make_room(variants.models, precision)
    for variant in variants.models:
        run_preset(variant, preset, (), Context(0, progress))
    prepared = prepare(
        variants.models, one, precision, keep_float, partial(verification_feeds, inputs=(), seed=0)
    )
    progress("tune")
    return search(prepared.models, one, tuning, progress)


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
    peak = measure_peak(threads, native().core)
    total = sum(node.ms for node in nodes)
    return LayerTimes(str(model), threads, runs, beside_peer(layers, nodes), peak, total)


def load(
    path: str | Path, threads: int | None = None, verify: bool = True, weights: str | Path | None = None
) -> CompiledModel:
    """Load a compiled artifact. This runs code from the file: load only artifacts that you trust.

    `weights` is the file that they were compiled into, where that is not `PATH.weights`. Raises ArtifactError.
    """
    import graphopt_runtime

    return graphopt_runtime.load(path, threads=threads, verify=verify, weights=weights)


def _bound(model: Model, binding: Binding, feeds: Feeds | None) -> tuple[ir.Model, Feeds]:
    """The first variant of a model, and the feeds to measure it on."""
    bound = make_variants(read(model), binding).models[0]
    return bound, random_feeds(bound) if feeds is None else match_feeds([bound], feeds)
