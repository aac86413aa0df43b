"""The verdicts of compile and optimize: their results next to ONNX Runtime's, and the first place where they differ."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.accuracy.islands import quantised_values, verify_islands
from graphopt.accuracy.locate import Compiler, first_difference
from graphopt.accuracy.verify import ReferenceFailed, Verdict, reference, verify
from graphopt.arrays import Feeds
from graphopt.artifacts import artifact
from graphopt.artifacts.artifact import Build
from graphopt.compiling import manifest
from graphopt.compiling.presets import run_preset
from graphopt.errors import ShapeError, VerificationError
from graphopt.feeds.matching import fits
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import normalise
from graphopt.rewriting import pipeline
from graphopt.rewriting.pipeline import Context, Report

if TYPE_CHECKING:
    from graphopt.backends.targets import Target
    from graphopt.compiling.precision import Prepared, Rounding

RANDOM_FEEDS, EMULATED_FEEDS = 3, 1
"""Random inputs that a result is verified on, besides those the user gives; fewer under an emulator, which is slow."""

STAND_IN = "by the same kernels on this machine"


def require_agreement(
    originals: Sequence[ir.Model],
    build: Build,
    inputs: Sequence[Feeds],
    seed: int,
    target: Target,
    preset: str,
    prepared: Prepared,
) -> Verdict:
    """The verdict on a build of all shape variants of a model. Raises VerificationError where a variant differs."""
    from graphopt.backends.execution import cannot_judge, runnable

    if not originals:
        return unchecked()
    if (reason := cannot_judge(target)) is not None:
        return Verdict(not_verified=reason)
    compiler = part_compiler(runnable(target), preset, seed, prepared.rounding)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.gopt"
        artifact.write(draft, [build])
        verdicts = [
            verify_artifact(original, draft, inputs, seed, target, compiler, partial(prepared.tolerance, i))
            for i, original in enumerate(originals)
        ]
    verdict = min(verdicts, key=severity)
    if verdict.verified and not verdict.passed:
        differs = originals[verdicts.index(verdict)]
        allowed = max(output.tolerance for output in verdict.outputs) if prepared.layers else 0.0
        raise VerificationError(explain(differs, verdict, compiler, seed, allowed) + prepared.hint)
    return verdict


def verify_artifact(
    original: ir.Model,
    draft: Path,
    inputs: Sequence[Feeds],
    seed: int,
    target: Target,
    compiler: Compiler,
    allowed: Callable[[ir.Model, Sequence[Feeds]], float],
) -> Verdict:
    """Compare the artifact, or what the same kernels compute here where its code cannot run, with the model as it came.

    `allowed` gives the least tolerance of floats. A quantised model whose outputs differ, as they do after one rounding tie, is
    judged operator by operator instead.
    """
    from graphopt.backends.execution import cannot_run, emulator_of, open_build

    emulator, names = emulator_of(target), [output.name or "" for output in original.graph.outputs]
    feeds = verification_feeds(original, inputs, seed, EMULATED_FEEDS if emulator else RANDOM_FEEDS)
    with ExitStack() as stack:
        if cannot_run(target) is not None:
            run, where = compiler(original), STAND_IN
        else:
            compiled = stack.enter_context(open_build(draft, target))
            run, where = partial(_run, compiled, names), f"under {emulator}" if emulator else ""
        verdict = verify(original, run, feeds, allowed(original, feeds))
    if verdict.verified and not verdict.passed and quantised_values(original):
        verdict = verify_islands(original, compiler, feeds)
    return replace(verdict, where=where)


def _run(compiled: Any, names: Sequence[str], feeds: Feeds) -> dict[str, Any]:
    return dict(zip(names, compiled.run(None, dict(feeds)), strict=True))


def verify_rewrite(original: ir.Model, optimized: ir.Model, inputs: Sequence[Feeds], seed: int) -> Verdict:
    """Compare a rewritten model with the one it came from, both in ONNX Runtime."""
    try:
        run = reference(optimized)
        return verify(original, run, verification_feeds(original, inputs, seed))
    except (ReferenceFailed, ShapeError) as error:
        return Verdict(not_verified=str(error))


def unchecked() -> Verdict:
    """The verdict where nobody wants one."""
    return Verdict(not_verified="verification was switched off")


def severity(verdict: Verdict) -> tuple[int, float]:
    """Of several verdicts a failure counts before what could not be verified, and that before a success; then the larger error."""
    return 2 if verdict.passed else 1 if not verdict.verified else 0, -verdict.max_rel_err


def verification_feeds(
    model: ir.Model, inputs: Sequence[Feeds], seed: int, count: int = RANDOM_FEEDS
) -> list[Feeds]:
    """The feeds of the user that fit this variant, and random ones."""
    given = [feeds for feeds in inputs if fits(model, feeds)]
    return [*given, *(random_feeds(model, seed=seed + i) for i in range(count))]


def explain(original: ir.Model, verdict: Verdict, compiler: Compiler, seed: int, allowed: float = 0.0) -> str:
    """The message for a wrong result: what differs and the first node where it does."""
    found = first_difference(original, compiler, random_feeds(original, seed=seed), allowed)
    return f"the compiled model differs from ONNX Runtime: {verdict}" + (f"\n{found}" if found else "")


def blame_pass(original: ir.Model, preset: str, feeds: Feeds, seed: int) -> None:
    """Raises VerificationError that names the first pass after which the result differs, if these feeds show it."""
    normalise(copy := original.clone())
    run_preset(copy, preset, [pipeline.Verify(feeds)], Context(seed))


def part_compiler(target: Target, preset: str, seed: int, rounding: Rounding | None = None) -> Compiler:
    """Compiles parts of a model the way the whole was compiled, to find or to judge a difference."""
    from graphopt.backends.compiler import compile_models
    from graphopt.backends.execution import open_build

    def compile_part(model: ir.Model) -> Callable[[Feeds], dict[str, Any]]:
        names = [output.name or "" for output in model.graph.outputs]
        part = model.clone()
        normalise(part)
        run_preset(part, preset, (), Context(seed))
        if rounding is not None:
            rounding.apply(part)
        library = compile_models([part], target)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.gopt"
            artifact.write(path, [manifest.describe("part", Report(), target, library, None)])
            compiled = open_build(path, target)
        return partial(_run, compiled, names)

    return compile_part
