"""The search for the smallest or fastest artifact: what it tries, what it chooses, and how it goes on where it was."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.datasets import load_digits

import graphopt
from graphopt.accuracy.evaluation import Judge
from graphopt.compression import candidates, compressing, pruning
from graphopt.compression.compressing import Compression, Point, compress
from graphopt.compression.plans import Plan, Zeros
from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from tests.conftest import make_model

MLP = Path(__file__).parents[2] / "models" / "digits_mlp.onnx"

SHARES = (1.0, 0.6, 0.2)


class Stopwatch:
    """Tells the latencies of plans in place of a measurement, and counts how often it is asked, and models are judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timed: list[str] = []
        self.judged = 0
        self.latencies: dict[str, float] = {}
        monkeypatch.setattr(candidates, "measure", self._measure)
        judge = Judge.judge

        def counted(one: Judge, changed: ir.Model) -> Any:
            self.judged += 1
            return judge(one, changed)

        monkeypatch.setattr(Judge, "judge", counted)

    def _measure(self, name: str, loaders: object, feeds: object, **schedule: object) -> Any:
        self.timed.append(name)
        after = SimpleNamespace(median_ms=self.latencies.get(name, 2.0), error=None)
        return SimpleNamespace(
            backends={"before": SimpleNamespace(median_ms=2.0, error=None), "after": after}
        )


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    monkeypatch.setattr(compressing, "SHARES", SHARES)
    monkeypatch.setitem(compressing.WAYS, "latency", (Plan(), Plan(scheme="int8")))
    return Stopwatch(monkeypatch)


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load_digits()
    images = digits.images[:96].astype(np.float32)[:, None]
    return Dataset({"image": images}, digits.target[:96].astype(np.int64))


def plans(points: list[Point]) -> list[str]:
    return [str(point.plan) for point in points]


def test_less_and_less_until_too_much_is_lost(stopwatch: Stopwatch, data: Dataset, tmp_path: Path) -> None:
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=1)
    assert plans(done.points) == [
        "as it was",
        "60 % of multiply-adds",
        "20 % of multiply-adds",
        "int8",
        "60 % of multiply-adds, int8",
    ]
    too_much = [point for point in done.points if point.drop > 1]
    assert {point.plan.share for point in too_much} == {0.2}
    assert all(point.bytes is None and point.latency is None for point in too_much)
    assert all(point.bytes and point.latency for point in done.points if point not in too_much)
    assert "as it was" not in stopwatch.timed


def test_the_fastest_of_what_fits_is_written(stopwatch: Stopwatch, data: Dataset, tmp_path: Path) -> None:
    stopwatch.latencies = {"60 % of multiply-adds": 1.0, "int8": 0.5, "60 % of multiply-adds, int8": 0.8}
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=1)
    assert done.chosen.plan == Plan(scheme="int8")
    assert done.chosen.latency == 0.25
    assert done.path.stat().st_size == done.chosen.bytes
    images = data.columns["image"]
    with graphopt.load(done.path) as compiled:
        answers = [compiled.run(None, {"image": images[i : i + 1]})[0].argmax() for i in range(20)]
    assert np.mean(answers == data.labels[:20]) > 0.9


@pytest.mark.slow
def test_the_smallest_of_what_fits_is_written(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "SHARES", (1.0, 0.5))
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=1, objective="size")
    ways = {replace(point.plan, share=1.0) for point in done.points}
    assert {Plan(clusters=64), Plan(scheme="int8"), Plan(scheme="int8", clusters=32)} <= ways
    assert any(plan.zeros and plan.clusters for plan in ways)
    assert done.chosen.bytes == min(point.bytes for point in done.points if point.bytes is not None)
    assert done.path.stat().st_size == done.chosen.bytes


def test_no_budget_allows_what_loses_nothing(stopwatch: Stopwatch, data: Dataset, tmp_path: Path) -> None:
    stopwatch.latencies = {"60 % of multiply-adds": 0.1, "int8": 0.1}
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=0, metric="cosine")
    assert done.chosen.plan == Plan()
    assert done.chosen.drop == 0


def test_a_second_search_measures_nothing_again(stopwatch: Stopwatch, data: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = compress(MLP, data, tmp_path / "a.gopt", max_drop=1, journal=journal)
    measured, content = (stopwatch.timed.copy(), stopwatch.judged), journal.read_bytes()
    stopwatch.latencies = {"int8": 100.0}
    second = compress(MLP, data, tmp_path / "b.gopt", max_drop=1, journal=journal)
    assert second.points == first.points
    assert (tmp_path / "a.gopt").read_bytes() == (tmp_path / "b.gopt").read_bytes()
    assert journal.read_bytes() == content
    assert (stopwatch.timed, stopwatch.judged) == measured


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    compress(MLP, data, tmp_path / "a.gopt", max_drop=1, journal=journal)
    before = len(stopwatch.timed)
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=100, journal=journal)
    assert stopwatch.timed[before:] == ["20 % of multiply-adds", "20 % of multiply-adds, int8"]
    assert all(point.bytes is not None for point in done.points)


def test_an_interrupted_search_goes_on_where_it_was(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(MLP, data, tmp_path / "whole.gopt", max_drop=1)
    stopwatch.timed.clear()
    journal, measure = tmp_path / "journal", candidates.measure

    def interrupted(name: str, *arguments: Any, **schedule: Any) -> Any:
        if name == "int8":
            raise KeyboardInterrupt
        return measure(name, *arguments, **schedule)

    monkeypatch.setattr(candidates, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compress(MLP, data, tmp_path / "a.gopt", max_drop=1, journal=journal)
    assert not (tmp_path / "a.gopt").exists()
    before = stopwatch.timed.copy()
    monkeypatch.setattr(candidates, "measure", measure)
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=1, journal=journal)
    assert done.points == whole.points
    assert stopwatch.timed[len(before) :] == ["int8", "60 % of multiply-adds, int8"]
    assert (tmp_path / "a.gopt").read_bytes() == (tmp_path / "whole.gopt").read_bytes()


def test_combinations_are_tried_and_pruned_models_made_once(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (Plan(scheme="int8"), Plan(scheme="int8", clusters=8), Plan(zeros=Zeros(0.5), scheme="int8"))
    monkeypatch.setitem(compressing.WAYS, "size", ways)
    pruned, prune = [], pruning.prune

    def counted(model: ir.Model, target: pruning.Target, *arguments: Any, **settings: Any) -> Any:
        pruned.append(target.share)
        return prune(model, target, *arguments, **settings)

    monkeypatch.setattr(pruning, "prune", counted)
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=5, objective="size")
    sizes = {str(point.plan): point.bytes for point in done.points}
    assert {"int8, 8 clusters", "60 % of multiply-adds, int8, 8 clusters", "50 % zeros, int8"} <= set(sizes)
    assert sizes["int8, 8 clusters"] < sizes["int8"]
    assert len(pruned) == len(set(pruned))


def test_what_goes_as_far_as_what_lost_too_much_is_not_tried(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (Plan(clusters=2), Plan(scheme="int8"), Plan(scheme="int8", clusters=2))
    monkeypatch.setitem(compressing.WAYS, "size", ways)
    monkeypatch.setattr(compressing, "SHARES", (1.0,))
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=0.5, objective="size")
    assert plans(done.points) == ["2 clusters", "int8"]
    assert done.chosen.plan == Plan(scheme="int8")


def test_the_journal_of_other_data_is_refused(stopwatch: Stopwatch, data: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    compress(MLP, data, tmp_path / "a.gopt", max_drop=1, journal=journal)
    other = Dataset({"image": data.columns["image"][:64]}, data.labels[:64])
    for settings in ({"calib": other}, {"calib": data, "objective": "size"}):
        with pytest.raises(DataError, match="another search"):
            compress(MLP, output=tmp_path / "b.gopt", max_drop=1, journal=journal, **settings)
    assert not (tmp_path / "b.gopt").exists()


def test_a_model_that_no_channel_can_leave_is_quantised(stopwatch: Stopwatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "agraph (float[N,16] x) => (float[N,8] y) { y = MatMul(x, w) }"
    model = make_model(text, w=rng.standard_normal((16, 8)).astype(np.float32))
    samples = Dataset({"x": rng.standard_normal((64, 16)).astype(np.float32)})
    done = compress(model, samples, tmp_path / "a.gopt", max_drop=50)
    assert plans(done.points) == ["as it was", "int8"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_drop": float("nan")}, "a drop of nan"),
        ({"max_drop": -1}, "a drop of -1"),
        ({"objective": "beauty"}, "unknown objective 'beauty'"),
        ({"metric": "beauty"}, "unknown metric"),
        ({"target": "z80"}, "unknown target 'z80'"),
        ({"dims": {"nowhere": 3}}, "nowhere"),
    ],
)
def test_bad_requests_write_nothing(
    settings: dict[str, Any], message: str, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(GraphoptError, match=message):
        compress(
            MLP, data, tmp_path / "a.gopt", **{"max_drop": 1, "journal": tmp_path / "journal", **settings}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_nothing_keeps(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compressing.WAYS, "latency", (Plan(scheme="int8"),))
    with pytest.raises(GraphoptError, match="is lost at least, 0 may be"):
        compress(MLP, data, tmp_path / "a.gopt", max_drop=0, metric="cosine")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_measured_is_told(
    stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = SimpleNamespace(median_ms=0.0, error="the process died")
    monkeypatch.setattr(candidates, "measure", lambda *_, **__: SimpleNamespace(backends={"after": lost}))
    with pytest.raises(GraphoptError, match="60 % of multiply-adds: the process died"):
        compress(MLP, data, tmp_path / "a.gopt", max_drop=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_latencies_are_measured_next_to_the_model_as_it_was(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "SHARES", (1.0, 0.5))
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=100)
    latencies = [point.latency for point in done.points]
    assert latencies[0] == 1
    assert all(latency is not None and latency > 0 for latency in latencies)


@pytest.mark.parametrize("way", [Plan(clusters=4), Plan(scheme="int8", clusters=4)], ids=str)
def test_what_was_chosen_learns_at_the_end(
    way: Plan, stopwatch: Stopwatch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(compressing.WAYS, "size", (way,))
    monkeypatch.setattr(compressing, "SHARES", (1.0,))
    monkeypatch.setattr(candidates, "CLUSTERED_BY", ())
    done = compress(MLP, data, tmp_path / "a.gopt", max_drop=90, objective="size", recover_minutes=0.05)
    assert done.recovery is not None
    assert done.recovery.kept
    before, after = done.points
    assert after == done.chosen
    assert after.plan == replace(way, recovered=True)
    assert after.bytes == done.path.stat().st_size
    assert after.bytes < 1.1 * (before.bytes or 0)
    assert done.to_json()["recovery"]["kept"]


def test_recovery_without_torch_is_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "graphopt.training", raising=False)
    with pytest.raises(GraphoptError, match=r"pip install 'graphopt\[torch\]'"):
        compress(MLP, data, tmp_path / "a.gopt", max_drop=1, recover_minutes=1)
    assert list(tmp_path.iterdir()) == []


FRONT = Point(Plan(), 0.0, 100, 1.0)
POINTS = [
    FRONT,
    Point(Plan(0.9), 0.0, 90, 1.1),
    Point(Plan(0.8), 0.1, 80, 0.9),
    Point(Plan(0.7), 0.2, 80, 0.9),
    Point(Plan(0.6), 0.1, 80, 0.9),
    Point(Plan(0.5), 0.3, 95, 1.0),
    Point(Plan(0.4), 9.0),
]


def test_no_point_of_the_front_is_beaten() -> None:
    done = Compression(POINTS, POINTS[2], "agreement", 100.0, Path("a.gopt"), [])
    assert [point.plan.share for point in done.front] == [1.0, 0.9, 0.8, 0.6]
    assert done.to_json()["front"][0] == "as it was"
    assert done.to_json()["chosen"]["plan"] == "80 % of multiply-adds"
