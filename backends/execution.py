"""Where code for a target runs: on this machine, under an emulator, or nowhere here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import graphopt_runtime
from graphopt.artifacts.device import RemoteModel
from graphopt.backends.emulation import emulated, emulator
from graphopt.backends.targets import TARGETS, Target, native, runs_here
from graphopt.errors import ArtifactError
from graphopt_runtime import CompiledModel
from graphopt_runtime.artifact import Manifest, open_artifact

Model = CompiledModel | RemoteModel


def emulator_of(target: Target) -> str | None:
    """The name of the emulator that code for a target runs under here; None where it needs none, or there is none."""
    program = None if runs_here(target) is None else emulator(target)
    return None if program is None else Path(program).name.removesuffix("-static")


def cannot_run(target: Target) -> str | None:
    """Why code for a target does not run here, not even under an emulator; None if it does."""
    return runs_here(target) if emulator_of(target) is None else None


def cannot_judge(target: Target) -> str | None:
    """Why no machine here computes what code for a target does; None if one does."""
    return cannot_run(target) if target.device else None


def runnable(target: Target) -> Target:
    """The target, or where that does not run here, one that does and gets the same kernels, but for its instructions for bytes
    and halves."""
    if cannot_run(target) is None:
        return target
    return replace(native(), core=replace(target.core, dot=None, half=None))


def open_build(path: Path, target: Target, threads: int | None = None) -> Model:
    """The build of an artifact that was made for `target`, ready to run. Raises ArtifactError, TargetError and DeviceError."""
    if emulator_of(target) is None:
        return graphopt_runtime.load(path, threads)

    def choose(builds: Sequence[Manifest], path: Path) -> Manifest:
        return next(build for build in builds if build["target"]["name"] == target.name)

    return RemoteModel(path, emulated(target), choose, threads or 1)


def open_anywhere(path: Path, threads: int | None = None) -> tuple[Model, str | None]:
    """An artifact ready to run, and the emulator that it runs under where no build of it runs without one.

    Raises ArtifactError where nothing here runs it.
    """
    try:
        return graphopt_runtime.load(path, threads), None
    except ArtifactError:
        target = _last_emulated(path)
        if target is None:
            raise
    return open_build(path, target, threads), emulator_of(target)


def _last_emulated(path: Path) -> Target | None:
    """The last target of an artifact that an emulator is here for."""
    names = [build["target"].get("name") for build in open_artifact(path, verify=False).builds]
    targets = [TARGETS[name] for name in names if name in TARGETS]
    return next((target for target in reversed(targets) if emulator_of(target) is not None), None)
