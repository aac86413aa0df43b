"""Structural pruning: what it leaves of many models, what it costs without training, and whether it is as fast as it is small.

`GRAPHOPT_ZOO=... python benchmarks/pruning.py groups [FOLDER]` prunes every float model of the zoo, the light models and those of a
folder (`benchmarks/architectures.py` writes one) by 25 % and 50 % of channels, and runs them in ONNX Runtime.
`... accuracy` removes 10, 20 and 30 % of multiply-adds, by L1 alone and by correlation with layers fitted afterwards.
`... speed` halves channels, and measures before and after in turns, next to ONNX Runtime.
`... latency` prunes to shares of the measured latency, where multiply-adds are most or where compiled kernels gain most.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from graphopt import api
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.compression.pruning import PruningResult, Target, prune
from graphopt.errors import GraphoptError
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import Statistics, normalise, save, statistics
from graphopt.model.variants import Binding, make_variants
from graphopt.timing.bench import Schedule, default_threads, measure
from graphopt.timing.measuring import BackendLoader
from int8_data import CASES, Case, datasets
from measured_models import binding, model_paths

RATIOS = (0.25, 0.5)

GROUPS = ("model", "groups", "channels", "whole", "MACs at 25 %", "parameters", "MACs at 50 %", "parameters")

ACCURACY = ("model", "method", "MACs left", "parameters left", "top-1 before", "after", "change")

SPEED = ("model", "MACs", "parameters", "graphopt ms", "pruned", "MACs / latency", "onnxruntime ms", "pruned")

LATENCY = ("model", "groups compete by", "asked", "latency left", "by block", "MACs left", *ACCURACY[4:])

BY = {"multiply-adds": "global", "cycles": "latency"}
"""Schedules by what they weigh channels with."""

INTEGER = ("12-int8", "qdq", "prepost")
"""Parts of the names of models that are not of floats, or need operators of others."""

ACCURATE = ("cifar10_resnet20", "cifar10_resnet56", "mobilenet_v2_1.0_224_fp32_from_int8")

FAST = (*ACCURATE, "squeezenet1.1_ncnnfp16")

METHODS: Mapping[str, Mapping[str, object]] = {
    "L1, not corrected": {"importance": "l1", "schedule": "uniform", "correct": False, "round_to": 1},
    "L1": {"importance": "l1", "schedule": "uniform", "round_to": 1},
    "correlation": {"importance": "correlation", "schedule": "uniform", "round_to": 1},
    "correlation, global": {"importance": "correlation", "schedule": "global", "round_to": 1},
    "correlation, global, widths of 8": {"importance": "correlation", "schedule": "global", "round_to": 8},
}


def groups_row(path: Path) -> list[str]:
    """Prunes by both ratios; ONNX Runtime has run what is left."""
    before, cells = statistics(_normal(path)), []
    for ratio in RATIOS:
        done = prune(path, Target("channels", 1 - ratio), round_to=1)
        after = statistics(done.model)
        cells += [f"{after.macs / max(before.macs, 1):.3f}", f"{after.params / before.params:.3f}"]
        whole = [each for each in done.whole if "output" not in each.reason]
        counts = [str(len(done.groups)), str(sum(size for size, _ in done.groups.values())), str(len(whole))]
    return [path.stem, *counts, *cells]


def _normal(path: Path) -> ir.Model:
    model = building.read(path)
    normalise(model)
    return model


def accuracy_rows(case: Case, only: str = "") -> Iterator[list[str]]:
    """A row for each method and share of multiply-adds."""
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    calib, test = datasets(case, zoo)
    for share in (0.9, 0.8, 0.7):
        for method, settings in METHODS.items():
            if only not in method:
                continue
            done = prune(
                zoo / "models" / f"{case.model}.onnx",
                Target("macs", share),
                calib,
                evaluate_on=test,
                **settings,  # type: ignore[arg-type]
            )
            first, last = _statistics(done)
            yield [
                case.model,
                method,
                f"{100 * last.macs / first.macs:.1f} %",
                f"{100 * last.params / first.params:.1f} %",
                *_top1(done),
            ]


def _statistics(done: PruningResult) -> list[Statistics]:
    """At first and at last."""
    steps = list(done.steps.values())
    return [steps[0].statistics, steps[-1].statistics]


def _top1(done: PruningResult) -> list[str]:
    """Before, after, and the change."""
    cost = list(done.steps.values())[-1].evaluation
    assert cost is not None
    assert cost.top1 is not None
    assert cost.interval is not None
    before, after = (100 * share for share in cost.top1)
    return [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f} +- {100 * cost.interval:.2f}"]


def latency_rows(case: Case) -> Iterator[list[str]]:
    """A row for each share of latency and for each way to weigh channels."""
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    calib, test = datasets(case, zoo)
    path = zoo / "models" / f"{case.model}.onnx"
    for share in (0.9, 0.8, 0.7):
        for weighed, schedule in BY.items():
            target = Target("latency", share)
            done = prune(path, target, calib, evaluate_on=test, schedule=schedule, round_to=8)
            first, last = _statistics(done)
            assert done.latency is not None
            yield [
                case.model,
                weighed,
                f"{share:g}",
                f"{done.latency.share:.2f}",
                f"{done.latency.low:.2f} to {done.latency.high:.2f}",
                f"{100 * last.macs / first.macs:.1f} %",
                *_top1(done),
            ]


def speed_row(path: Path) -> list[str]:
    """Half of the channels, widths rounded to 8."""
    done = prune(path, Target("channels", 0.5), round_to=8)
    before, after = (step.statistics for step in (done.steps["original"], done.steps["removed"]))
    with tempfile.TemporaryDirectory() as folder:
        files = _artifacts(path, done.model, Path(folder))
        feeds = random_feeds(make_variants(_normal(path), Binding(**binding(path))).models[0])
        loaders = {
            name: BackendLoader(name.split()[0], file, default_threads()) for name, file in files.items()
        }
        found = measure(
            path.stem, loaders, feeds, threads=default_threads(), schedule=Schedule(20, 9, 5)
        ).backends
    ms = {name: one.median_ms for name, one in found.items()}
    macs = before.macs / after.macs
    return [
        path.stem,
        f"{macs:.2f}x less",
        f"{before.params / after.params:.2f}x less",
        f"{ms['graphopt before']:.3f}",
        f"{ms['graphopt after']:.3f}",
        f"{macs / (ms['graphopt before'] / ms['graphopt after']):.2f}",
        f"{ms['onnxruntime before']:.3f}",
        f"{ms['onnxruntime after']:.3f}",
    ]


def _artifacts(path: Path, smaller: ir.Model, folder: Path) -> dict[str, Path]:
    """What each backend loads."""
    models = {"before": _normal(path), "after": smaller}
    files = {}
    for name, model in models.items():
        bound = make_variants(model, Binding(**binding(path))).models[0]
        save(bound, onnx := folder / f"{name}.onnx")
        files[f"graphopt {name}"] = api.build(onnx, folder / f"{name}.gopt").path
        files[f"onnxruntime {name}"] = onnx
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("groups", "accuracy", "speed", "latency"))
    parser.add_argument("folder", nargs="?", type=Path, help="groups: of further models")
    parser.add_argument("--only", default="", help="part of the names of models")
    parser.add_argument("--method", default="", help="accuracy: part of the names of methods")
    chosen = parser.parse_args()
    tables = {"groups": GROUPS, "accuracy": ACCURACY, "speed": SPEED, "latency": LATENCY}
    headings, rows = tables[chosen.table], []
    for row in _rows(chosen):
        print(" | ".join(row), file=sys.stderr, flush=True)
        rows.append(row)
    print(markdown(headings, rows))
    if chosen.table == "speed":
        print(f"\nLargest ratio of multiply-adds to latency: {max(float(row[5]) for row in rows):.2f}")
    return 0


def _rows(chosen: argparse.Namespace) -> Iterator[list[str]]:
    if chosen.table in ("accuracy", "latency"):
        for case in CASES:
            if case.model in ACCURATE and chosen.only in case.model:
                yield from (
                    latency_rows(case) if chosen.table == "latency" else accuracy_rows(case, chosen.method)
                )
        return
    paths = model_paths(light=chosen.table == "groups")
    if chosen.folder is not None:
        paths += sorted(chosen.folder.glob("*.onnx"))
    for path in paths:
        if chosen.only not in path.stem or any(part in path.stem for part in INTEGER):
            continue
        try:
            if chosen.table == "groups":
                yield groups_row(path)
            elif path.stem in FAST:
                yield speed_row(path)
        except GraphoptError as error:
            print(f"{path.stem}: {str(error).splitlines()[0]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
