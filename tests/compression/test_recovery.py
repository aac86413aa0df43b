"""Recovery after pruning, clustering, zeros and integers: what is won back, what stays, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.evaluation import Judge
from graphopt.compression.clustering import cluster
from graphopt.compression.pruning import Target, prune
from graphopt.compression.quantizing import quantize
from graphopt.compression.recovery import Lesson, Recovery
from graphopt.compression.sparsifying import sparsify
from graphopt.errors import GraphoptError, UnsupportedError
from graphopt.model import load, save

pytest.importorskip("torch")
from tests.training.distillation.harness import digits, disturbed, shipped

BRIEF = 0.03
"""Minutes."""

Run = Callable[..., Any]

RUNS: dict[str, Run] = {
    "prune": lambda model, *data, **more: prune(model, Target("macs", 0.3), *data, correct=False, **more),
    "cluster": lambda model, *data, **more: cluster(model, *data, clusters=4, techniques=(), **more),
    "sparsify": lambda model, *data, **more: sparsify(model, *data, pattern="2:4", compensate=False, **more),
    "quantize": lambda model, *data, **more: quantize(
        model, *data, scheme="int4-weights", techniques=(), **more
    ),
}


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def zeros(model: ir.Model) -> dict[str, list[bool]]:
    """Where the matrices have some."""
    return {name: (each == 0).ravel().tolist() for name, each in constants(model).items() if each.ndim > 1}


def shapes(model: ir.Model) -> dict[str, tuple[object, ...]]:
    return {name: (each.shape, each.dtype) for name, each in constants(model).items()}


def indices(model: ir.Model) -> dict[str, bytes]:
    """All that is no float, and how many values the codebooks have."""
    return {name: each.tobytes() for name, each in constants(model).items() if each.dtype != np.float32}


KEPT: dict[str, Callable[[ir.Model], object]] = {
    "prune": shapes,
    "cluster": lambda model: (indices(model), shapes(model)),
    "sparsify": zeros,
    "quantize": shapes,
}


@pytest.mark.parametrize("name", RUNS)
def test_quality_is_won_back_and_constraints_hold(name: str, tmp_path: Path) -> None:
    model, output = shipped("digits_mlp"), tmp_path / "out.onnx"
    plain = RUNS[name](model, digits())
    done = RUNS[name](model, digits(), output, recover_minutes=BRIEF)
    found: Recovery = done.recovery
    assert found.kept
    assert found.after.sqnr_db > found.before.sqnr_db
    rounds = found.learning.learned.rounds
    assert rounds[found.learning.learned.best].held_out < rounds[0].held_out
    saved = load(output)
    assert KEPT[name](saved) == KEPT[name](load_again(plain.model, tmp_path))
    assert done.to_json()["recovery"]["kept"]
    assert plain.recovery is None
    assert plain.to_json()["recovery"] is None


def load_again(model: ir.Model, folder: Path) -> ir.Model:
    """As it is read from a file."""
    save(model, folder / "plain.onnx")
    return load(folder / "plain.onnx")


def test_pruning_shows_it_as_a_step() -> None:
    done = RUNS["prune"](shipped("digits_mlp"), digits(), recover_minutes=BRIEF)
    assert list(done.steps) == ["original", "removed", "recovered"]
    assert done.steps["recovered"].evaluation == done.recovery.after
    assert done.steps["recovered"].statistics == done.steps["removed"].statistics


def test_evaluation_is_that_of_what_is_written() -> None:
    done = RUNS["sparsify"](shipped("digits_mlp"), digits(), recover_minutes=BRIEF)
    assert done.evaluation == done.recovery.after


def test_what_gains_nothing_is_not_kept() -> None:
    """A model that lost nothing comes no nearer to itself."""
    model = shipped("digits_mlp")
    done = prune(model, Target("macs", 1.0), digits(), correct=False, recover_minutes=BRIEF / 3)
    assert done.recovery is not None
    assert not done.recovery.kept
    assert done.steps["recovered"] == done.steps["removed"]
    assert "nothing was gained on held-out samples: the student is as it came" in done.warnings


@pytest.mark.parametrize(("max_drop", "kept"), [(0.2, False), (0.6, True), (None, True)])
def test_what_breaks_a_budget_is_not_kept(max_drop: float | None, kept: bool) -> None:
    """A metric that gets worse while the held-out loss gets better."""
    original, scores = shipped("digits_mlp"), iter([1.0, 0.9, 0.5])
    student = disturbed(original)
    judge = Judge(original, digits(), metric=lambda *_: next(scores))
    lesson = Lesson(original, digits(), judge, BRIEF, max_drop, 1, lambda stage: None)
    done = lesson.recovered(student, judge.judge(student))
    assert done.recovery is not None
    assert done.recovery.kept is kept
    assert (done.model is student) is not kept
    assert done.evaluation == (done.recovery.after if kept else done.recovery.before)
    refusal = ["what was recovered loses more than --max-drop: the weights are those before"]
    assert done.warnings == ([] if kept else refusal)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"recover_minutes": 0.0}, "give a number of minutes above 0"),
        ({"recover_minutes": float("inf")}, "give a number of minutes above 0"),
        ({"recover_minutes": float("nan")}, "give a number of minutes above 0"),
        ({"calib": None, "recover_minutes": 1.0}, "--recover needs --calib DATA"),
        ({"calib": None, "evaluate_on": digits(), "recover_minutes": 1.0}, "--recover needs --calib DATA"),
    ],
)
def test_bad_requests(name: str, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match=message):
        RUNS[name](shipped("digits_mlp"), **({"calib": digits()} | more), output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_operators_that_cannot_learn_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="DynamicQuantizeLinear"):
        quantize(
            shipped("digits_mlp"), digits(), tmp_path / "o", scheme="int8-dynamic", recover_minutes=BRIEF
        )
    assert not (tmp_path / "o").exists()


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match="8 or more samples are needed"):
        RUNS["cluster"](shipped("digits_mlp"), digits(5), tmp_path / "o", recover_minutes=BRIEF)
    assert not (tmp_path / "o").exists()
