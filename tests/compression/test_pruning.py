"""Pruning whole models: targets that are met, what it costs, and bad requests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sklearn.datasets import load_digits

import graphopt
from graphopt.accuracy.verify import reference
from graphopt.compiling.building import read
from graphopt.compression.pruner import Pruned, Pruner
from graphopt.compression.pruning import groups, prune
from graphopt.compression.pruning_targets import MEASURES, Target
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.model import proto, statistics
from graphopt.passes.prune.importance import IMPORTANCE
from graphopt.passes.prune.removal import Kept
from graphopt.passes.prune.schedule import SCHEDULES
from tests.conftest import make_model
from tests.passes.prune.checking import random

CNN = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load_digits()
    return Dataset({"image": digits.images.astype(np.float32)[:, None]}, digits.target.astype(np.int64))


def small(**more: np.ndarray) -> ir.Model:
    """Two layers on eight channels."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((3, 8)), "v": rng.standard_normal((8, 4))}
    constants = {name: array.astype(np.float32) for name, array in {**weights, **more}.items()}
    text = "agraph (float[N,3] x) => (float[N,4] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    return make_model(text, **constants)


def samples(count: int = 40) -> Dataset:
    return Dataset({"x": np.random.default_rng(1).standard_normal((count, 3)).astype(np.float32)})


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("measure", MEASURES)
def test_targets_are_met(measure: str, schedule: str) -> None:
    share = 0.5
    done = prune(CNN, Target(measure, share), schedule=schedule)
    left = MEASURES[measure](statistics(done.model)) / MEASURES[measure](done.steps["original"].statistics)
    assert share - 0.15 < left <= share
    onnx.checker.check_model(proto(done.model), full_check=True)


def test_a_share_of_channels() -> None:
    done = prune(CNN, Target("channels", 0.5))
    assert done.groups
    assert all(after == round(before / 2) for before, after in done.groups.values())


def test_nothing_goes_at_a_share_of_one(data: Dataset) -> None:
    done = prune(CNN, Target("channels", 1))
    assert all(after == before for before, after in done.groups.values())
    feeds = next(data.batches(1))
    for name, value in reference(read(CNN))(feeds).items():
        np.testing.assert_allclose(reference(done.model)(feeds)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("importance", [name for name in IMPORTANCE if name != "taylor"])
def test_every_importance_ranks(importance: str) -> None:
    done = prune(small(), Target("channels", 0.5), samples(), importance=importance)
    assert done.importance == importance
    assert list(done.groups.values()) == [(8, 4)]


def test_what_is_left_makes_up_for_what_went(data: Dataset, tmp_path: Path) -> None:
    done = prune(CNN, Target("macs", 0.6), data, tmp_path / "smaller.onnx", samples=100, evaluate_on=data)
    removed, corrected = (done.steps[name].evaluation for name in ("removed", "corrected"))
    assert removed is not None
    assert corrected is not None
    assert corrected.sqnr_db > removed.sqnr_db
    assert corrected.top1 is not None
    before, after = corrected.top1
    assert before - after < 0.05
    assert statistics(read(tmp_path / "smaller.onnx")).macs == done.steps["corrected"].statistics.macs


def test_a_smaller_model_compiles() -> None:
    done = prune(small(), Target("channels", 0.5))
    feeds = next(samples().batches(4))
    with graphopt.compile(done.model, dims={"N": 4}) as compiled:
        (given,) = compiled.run(None, dict(feeds))
    np.testing.assert_allclose(given, *reference(done.model)(feeds).values(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"importance": "random", "seed": 3}, {"schedule": "global"}], ids=str
)
def test_the_same_request_gives_the_same_bytes(settings: Mapping[str, Any], tmp_path: Path) -> None:
    content = []
    for name in ("one", "two"):
        prune(small(), Target("channels", 0.5), samples(), tmp_path / f"{name}.onnx", **settings)
        content.append((tmp_path / f"{name}.onnx").read_bytes())
    assert content[0] == content[1]


def test_widths_are_rounded() -> None:
    assert {after % 4 for _, after in prune(CNN, Target("channels", 0.6), round_to=4).groups.values()} == {0}


def test_protected_groups_stay() -> None:
    found, _ = groups(CNN)
    first = found[0]
    assert first.name not in {group.name for group in groups(CNN, (first.nodes[0],))[0]}
    assert first.name not in prune(CNN, Target("channels", 0.5), protect=(first.nodes[0],)).groups


def test_a_report_says_what_happened() -> None:
    report = prune(small(), Target("channels", 0.5)).to_json()
    assert list(report["groups"].values()) == [{"before": 8, "after": 4}]
    assert report["whole"]
    assert report["steps"].keys() == {"original", "removed"}
    assert report["warnings"]


def test_nothing_that_goes_is_told() -> None:
    told = "nothing was removed"
    assert any(told in each for each in prune(small(), Target("channels", 0.99)).warnings)
    assert any(told in each for each in prune(small(), Target("channels", 0.5), round_to=8).warnings)
    assert not any(told in each for each in prune(small(), Target("channels", 0.5)).warnings)


def test_a_share_of_channels_in_steps() -> None:
    """Each step takes as much of what the one before has left."""
    done = prune(small(), Target("channels", 0.25), samples(), steps=2)
    assert list(done.groups.values()) == [(8, 2)]
    assert [each for each in done.steps if "removed" in each] == ["removed 1", "removed 2"]
    assert done.steps["removed 1"].statistics.params == 4 * (3 + 4)


def test_operators_are_protected_as_well() -> None:
    assert groups(small())[0]
    assert not groups(small(), ("Relu",))[0]


REFUSED = {
    "ONNX Runtime": lambda rows: random(rows + 1, 4),
    "gives other shapes": lambda rows: random(rows, 5),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_smaller_model_that_does_not_run_is_not_written(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pruner: Pruner, kept: Kept, correct: bool | None = None) -> Pruned:
        model = small()
        model.graph.initializers["v"].const_value = ir.Tensor(REFUSED[message](8), name="v")
        model.graph.outputs[0].shape = None
        return Pruned(model, kept)

    monkeypatch.setattr(Pruner, "make", broken)
    with pytest.raises(GraphoptError, match=message):
        prune(small(), Target("channels", 0.5), output=tmp_path / "never.onnx")
    assert list(tmp_path.iterdir()) == []


WHOLE = make_model(
    "agraph (float[2,3] x) => (float[2,8] y) { y = MatMul(x, w) }", w=np.ones((3, 8), np.float32)
)
NAN = {"w": np.full((3, 8), np.nan)}
BAD = {
    "more than 0": (small, ("channels", 0), {}),
    "up to 1": (small, ("macs", 1.5), {}),
    "unknown target 'heads'": (small, ("heads", 0.5), {}),
    "cannot be reached by removing channels": (small, ("params", 0.01), {}),
    "unknown importance 'size'": (small, ("channels", 0.5), {"importance": "size"}),
    "unknown schedule 'some'": (small, ("channels", 0.5), {"schedule": "some"}),
    "a seed of -1 is none": (small, ("channels", 0.5), {"seed": -1}),
    "multiple of 1 or more": (small, ("channels", 0.5), {"round_to": 0}),
    "every group of channels is protected": (small, ("channels", 0.5), {"protect": ("*",)}),
    "no node or operator of the model matches 'Conv'": (small, ("channels", 0.5), {"protect": ("Conv",)}),
    "the initializer 'w' has NaN or infinity": (lambda: small(**NAN), ("channels", 0.5), {}),
    "the importance correlation needs --calib DATA": (
        small,
        ("channels", 0.5),
        {"importance": "correlation"},
    ),
    "the importance taylor needs --calib DATA": (small, ("channels", 0.5), {"importance": "taylor"}),
    "no channel of this model can be removed": (lambda: WHOLE.clone(), ("channels", 0.5), {}),
    "metric": (small, ("channels", 0.5), {"metric": "beauty"}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(message: str, tmp_path: Path) -> None:
    build, target, settings = BAD[message]
    with pytest.raises(GraphoptError, match=message.replace("*", r"\*")):
        prune(build(), Target(*target), output=tmp_path / "never.onnx", **settings)
    assert list(tmp_path.iterdir()) == []
