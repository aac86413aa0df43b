"""The way to the compiler and to the tuner. Both import TVM, which takes seconds: by then, what is wrong with a model is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.errors import TargetError, TuningError
from graphopt.timing.bench import default_threads
from graphopt.timing.tuning import Tuning, TuningReport

if TYPE_CHECKING:
    from graphopt.backends.compiler import Library
    from graphopt.backends.targets import Target
    from graphopt.backends.tune.places import Place

Progress = Callable[[str], None]


def generate(
    models: Sequence[ir.Model],
    target: Target,
    progress: Progress,
    profile: bool,
    tuning: Tuning | None,
) -> Library:
    """The library of the shape variants of a model. Raises UnsupportedError, TargetError, and TuningError where a required
    schedule is missing."""
    from graphopt.backends.compiler import compile_models
    from graphopt.backends.schedules.choice import Measured
    from graphopt.backends.tune.database import Database

    if tuning is None:
        return compile_models(models, target, progress, profile)
    schedules = Measured(Database(tuning.database).fastest(target.name))
    library = compile_models(models, target, progress, profile, schedules)
    if tuning.required and schedules.missing:
        lines = "\n".join(f"  {workload}" for workload in schedules.missing)
        raise TuningError(f"{tuning.database} has no schedule of target {target.name} for:\n{lines}")
    return library


def search(models: Sequence[ir.Model], target: Target, tuning: Tuning, progress: Progress) -> TuningReport:
    """Measure schedules. Raises TargetError where the target does not run on this machine, TuningError for a bad database
    or without the Ray cluster that is to build, DeviceError without the device that is to measure."""
    from graphopt.backends.tune.database import Database
    from graphopt.backends.tune.session import tune_models

    assert tuning.budget is not None
    place, database = _place(target, tuning), Database(tuning.database)
    return tune_models(models, target, database, tuning.budget, place, tuning.ray, progress)


def _place(target: Target, tuning: Tuning) -> Place:
    """Where times are taken."""
    from graphopt.artifacts.devices import find_devices
    from graphopt.backends.targets import runs_here
    from graphopt.backends.tune.places import Boards, Here, There

    if target.device:
        return _gpu(target, tuning)
    if tuning.device is not None:
        boards, threads = find_devices(tuning.device), tuning.threads or 0
        return There(boards[0], threads) if len(boards) == 1 else Boards(boards, threads)
    if (reason := runs_here(target)) is not None:
        raise TargetError(f"cannot tune for {target.name} here: {reason}; give --device")
    return Here(tuning.threads or default_threads())


def _gpu(target: Target, tuning: Tuning) -> Place:
    """The GPU of this machine, which has a compiler for it."""
    from graphopt.backends.cuda.nvcc import require_nvcc
    from graphopt.backends.targets import runs_here
    from graphopt.backends.tune.places import Here

    if tuning.device is not None:
        raise TargetError(f"--device: {target.name} is tuned on the machine that has the GPU")
    if (reason := runs_here(target)) is not None:
        raise TargetError(f"cannot tune for {target.name} here: {reason}")
    require_nvcc()
    return Here(threads=1)
