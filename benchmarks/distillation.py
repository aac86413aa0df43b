"""What distillation wins back: pruned, sparse, clustered and quantised ResNets, and small students of digits.

`GRAPHOPT_ZOO=... python benchmarks/distillation.py [--minutes 10] [--seeds 5] [--images 5000] [pruned] [kept] [digits]`

Pruned students learn from 4000 images without labels, for so many minutes: from the teacher's scores, and from the classes that the teacher
gives as if they were labels. Those that keep their teacher's shape are recovered in the same time; what they were compressed to
is verified on the saved file.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import digits
import digits_student
from graphopt.accuracy.evaluation import Evaluation, Judge
from graphopt.accuracy.verify import reference
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.compression.distilling import distill
from graphopt.compression.pruning import Target, prune
from graphopt.feeds.data import Dataset, load_dataset
from graphopt.model import normalise, statistics
from students import makers, traits

PRUNED = (
    "model",
    "of MACs",
    "learned from",
    "epochs",
    "top-1 before",
    "after",
    "of loss",
    "agreement before",
    "after",
)
KEPT = (
    "model",
    "student",
    "epochs",
    "top-1 before",
    "after",
    "of loss",
    "agreement before",
    "after",
    "constraints",
)
DIGITS = ("learned from", "parameters", "top-1, mean", "spread", "lowest", "highest")

SHARES = (0.5, 0.3)
"""Of the multiply-adds, that are left."""

RATE = 3e-4
"""Of learning, from scores and from classes."""

CALIBRATION = 200


class Bench:
    """A ResNet, its images, and what is measured on them."""

    def __init__(self, name: str, minutes: float, images: int) -> None:
        zoo = Path(os.environ["GRAPHOPT_ZOO"])
        self.name, self._minutes = name, minutes
        self.teacher = building.read(zoo / "models" / f"{name}.onnx")
        normalise(self.teacher)
        inputs = list(self.teacher.graph.inputs)
        self.data, test = (
            load_dataset(zoo / "data" / file, inputs, "cifar")
            for file in ("cifar10_train4k_lossless_unlabelled.npz", "cifar10_test_jpeg_5k.npz")
        )
        self._judge = Judge(self.teacher, test, images)

    def learned(self, student: ir.Model, **options: Any) -> tuple[ir.Model, list[str]]:
        """A student after its minutes, and the cells of its row: epochs, and both measures before and after."""
        with tempfile.TemporaryDirectory() as folder:
            teacher = None if options.get("labels") else self.teacher
            data = self.labelled() if options.get("labels") else self.data
            done = distill(
                student, teacher, data, path := Path(folder) / "s.onnx", minutes=self._minutes, **options
            )
            saved = building.read(path)
        before, after = self._judge.judge(student), self._judge.judge(saved)
        return saved, [f"{done.learned.epochs:.1f}", *_cells(before, after)]

    def labelled(self) -> Dataset:
        """The images with the classes that the teacher gives them."""
        run = reference(self.teacher, optimised=True)
        scores = np.concatenate([next(iter(run(batch).values())) for batch in self.data.batches(50)])
        return replace(self.data, labels=scores.argmax(1))


def pruned(bench: Bench) -> list[list[str]]:
    """Rows of the first table."""
    rows = []
    for share in SHARES:
        student = prune(bench.teacher, Target("macs", share), bench.data, schedule="global").model
        macs = statistics(student).macs / statistics(bench.teacher).macs
        for source, options in {"scores": {}, "classes": {"labels": True}}.items():
            _, cells = bench.learned(student, rate=RATE, **options)
            rows.append([bench.name, f"{100 * macs:.0f} %", f"the teacher's {source}", *cells])
            print(*rows[-1], sep=" | ", flush=True)
    return rows


def kept(bench: Bench) -> list[list[str]]:
    """Rows of the second table."""
    rows = []
    for name, make in makers(bench.data.select(range(CALIBRATION))).items():
        student = make(bench.teacher)
        normalise(student)
        saved, cells = bench.learned(student)
        normalise(saved)
        rows.append([bench.name, name, *cells, "kept" if traits(saved) == traits(student) else "LOST"])
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def small(seeds: int) -> list[list[str]]:
    """Rows of the third table: students that start from random weights."""
    learned, held_out = digits.load()
    judge = Judge(building.read(digits_student.TEACHER), Dataset({"image": held_out.images}, held_out.labels))
    parameters = statistics(digits_student.untrained(0)).params
    rows = []
    for source, alpha in {"labels": 1.0, "labels and teacher": 0.5, "the teacher": 0.0}.items():
        found = []
        for seed in range(seeds):
            top1 = judge.judge(digits_student.learn(learned, seed, alpha).model).top1
            assert top1 is not None
            found.append(100 * top1[1])
        numbers = [
            float(np.mean(found)),
            float(np.std(found, ddof=min(1, seeds - 1))),
            min(found),
            max(found),
        ]
        rows.append([source, str(parameters), *(f"{each:.2f}" for each in numbers)])
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def _cells(before: Evaluation, after: Evaluation) -> list[str]:
    """Top-1 of the student, how much of what it had lost it won back, and its agreement with the teacher."""
    assert before.top1 is not None
    assert after.top1 is not None
    assert before.agreement is not None
    assert after.agreement is not None
    teacher, first, last = before.top1[0], before.top1[1], after.top1[1]
    won = f"{100 * (last - first) / (teacher - first):.0f} %" if teacher > first else "-"
    shares = [f"{100 * each:.2f}" for each in (first, last, before.agreement, after.agreement)]
    return [*shares[:2], won, *shares[2:]]


TABLES: Mapping[str, Sequence[str]] = {"pruned": PRUNED, "kept": KEPT, "digits": DIGITS}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5000)
    chosen = parser.parse_args()
    wanted = chosen.tables or list(TABLES)
    found: dict[str, list[list[str]]] = {}
    if "pruned" in wanted:
        found["pruned"] = pruned(Bench("cifar10_resnet56", chosen.minutes, chosen.images))
    if "kept" in wanted:
        found["kept"] = kept(Bench("cifar10_resnet20", chosen.minutes, chosen.images))
    if "digits" in wanted:
        found["digits"] = small(chosen.seeds)
    for name, rows in found.items():
        print(f"\n{markdown(TABLES[name], rows)}")


if __name__ == "__main__":
    main()
