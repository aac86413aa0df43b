"""Tuning next to TVM's MetaSchedule: `python benchmarks/tuning.py [NAME] [--seconds 60] [--tasks 2] [--trials 32]`.

graphopt tunes all convolutions and products of a model, by default SqueezeNet. MetaSchedule as it comes, with random choice of
candidates, then gets `--trials` trials for each of the `--tasks` convolutions that take longest. Both use all CPUs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.backends.schedules.workload import Workload
from graphopt.backends.targets import native
from graphopt.backends.tune.builders import Builders
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.search import Search, State, short
from graphopt.backends.tune.session import flush_bytes
from graphopt.backends.tune.tasks import extract
from graphopt.cli.report import markdown
from graphopt.compiling.presets import run_preset
from graphopt.model.variants import Binding, make_variants
from graphopt.rewriting.pipeline import Context
from graphopt.timing.tuning import Budget
from measured_models import binding, model_paths

CPUS = len(os.sched_getaffinity(0))
MOST_TRIALS = 100_000


@dataclass(frozen=True)
class Run:
    """What a tool did."""

    tool: str
    trials: int
    seconds: float

    def texts(self) -> list[str]:
        rate = self.trials / self.seconds / CPUS
        return [self.tool, str(self.trials), f"{self.seconds:.0f}", f"{rate:.2f}"]


def tune(path: Path, seconds: float, folder: Path) -> tuple[Run, list[State]]:
    """graphopt's search over all tasks of a model."""
    from graphopt.compiling import building

    options = binding(path)
    models = make_variants(building.read(path), Binding(options["dims"], options["input_shapes"], {})).models
    for model in models:
        run_preset(model, building.COMPILE_PRESET, (), Context(0, lambda stage: None))
    target = native()
    found = extract(models, target)
    with Builders(CPUS) as builders:
        started = time.monotonic()
        search = Search(found.tasks, target, Database(folder / "db"), builders, flush_bytes(found))
        search.run(
            Budget(MOST_TRIALS, seconds), Here(CPUS), lambda line: print(line, file=sys.stderr, flush=True)
        )
        spent = time.monotonic() - started
    return Run("graphopt", search.trials, spent), search.states


def metaschedule(workload: Workload, trials: int, folder: Path) -> tuple[Run, float]:
    """MetaSchedule's search over one convolution: what it did, and its best time in microseconds."""
    import tvm
    from tvm.s_tir import meta_schedule

    target = tvm.target.Target({"kind": "llvm", "mcpu": native().cpu, "num-cores": CPUS})
    started = time.monotonic()
    database = meta_schedule.tune_tir(
        _convolution(workload),
        target=target,
        work_dir=str(folder),
        max_trials_global=trials,
        num_trials_per_iter=trials,
        cost_model="random",
        num_tuning_cores=CPUS,
    )
    spent = time.monotonic() - started
    times = [min(float(t) for t in record.run_secs) for record in database.get_all_tuning_records()]
    return Run("MetaSchedule", len(times), spent), 1e6 * min(times)


def _convolution(workload: Workload) -> Any:
    """The convolution and the Relu that graphopt measures, as TVM's operator library writes them."""
    from tvm import te, topi

    fact = dict(workload.facts)
    data = te.placeholder((fact["batch"], fact["channels"], fact["input_h"], fact["input_w"]), name="data")
    weights = te.placeholder(
        (fact["filters"], fact["channels"], fact["kernel_h"], fact["kernel_w"]), name="weights"
    )
    pads = (fact["pad_h"], fact["pad_w"])
    out = topi.nn.conv2d(data, weights, (fact["stride_h"], fact["stride_w"]), pads, 1, data_layout="NCHW")
    return te.create_prim_func([data, weights, topi.nn.relu(out)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="squeezenet1.1", help="part of a model's name")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--trials", type=int, default=32)
    chosen = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(CPUS)
    logging.disable()
    [path, *_] = model_paths(True, [chosen.name])
    runs, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        ours, states = tune(path, chosen.seconds, Path(name))
        runs.append(ours)
        measured = [(state, state.rule_us, state.best) for state in states]
        plain = [
            (state, rule, best[1])
            for state, rule, best in measured
            if rule is not None and best is not None and dict(state.task.workload.facts).get("groups") == 1
        ]
        for state, rule, best in sorted(plain, key=lambda each: -each[1])[: chosen.tasks]:
            run, theirs = metaschedule(state.task.workload, chosen.trials, Path(name) / str(len(runs)))
            runs.append(run)
            rows.append([short(state.task.workload), f"{rule:.1f}", f"{best:.1f}", f"{theirs:.1f}"])
    print(markdown(("tool", "trials", "seconds", "trials a second a core"), [run.texts() for run in runs]))
    print()
    print(markdown(("task", "rule us", "graphopt us", "MetaSchedule us"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
