"""Schedules measured inside the model: what is built, recorded, and chosen then."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.schedules import gemm
from graphopt.backends.targets import native
from graphopt.backends.tune import in_model
from graphopt.backends.tune.database import Database, Trial, versions
from graphopt.backends.tune.in_model import measure_in_model
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.tasks import extract
from tests.conftest import make_model

WIDTH = 64


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ir.Model:
    monkeypatch.setattr(in_model, "SECONDS", 0.0)
    weights = np.eye(WIDTH, dtype=np.float32)
    text = "agraph (float[1,8,64] x) => (float[1,8,64] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    return make_model(text, w=weights)


def tuned(model: ir.Model, path: Path) -> Database:
    database = Database(path)
    workloads = [task.workload for task in extract([model], native()).tasks]
    measure_in_model(model, workloads, native(), database, Here(1), lambda stage: None)
    return database


def test_the_rule_and_the_winner_are_measured_and_the_faster_is_chosen(
    model: ir.Model, tmp_path: Path
) -> None:
    [task] = extract([model], native()).tasks
    rule, other = (config for _, config in gemm.candidates(task.workload, native().core)[:2])
    Database(tmp_path / "db").add([Trial(task.workload, native().name, other, 0.1, versions())])
    database = tuned(model, tmp_path / "db")
    times = database.times_in_model(native().name, task.workload)
    assert sorted(map(str, (config for config, _ in times))) == sorted(map(str, (rule, other)))
    assert all(spent is not None and spent > 0 for _, spent in times)
    assert Database(tmp_path / "db").fastest(native().name)[task.workload][0] == times[0][0]


def test_times_of_a_second_run_are_those_of_the_first_in_other_units(model: ir.Model, tmp_path: Path) -> None:
    """The rule's schedule keeps its time, so that a quieter machine favours nobody."""
    [task] = extract([model], native()).tasks
    rule, other = (config for _, config in gemm.candidates(task.workload, native().core)[:2])
    name = native().name
    Database(tmp_path / "db").add(
        [
            Trial(task.workload, name, other, 0.1, versions()),
            Trial(task.workload, name, rule, 1e6, versions(), in_model=True),
        ]
    )
    times = {
        str(config): spent
        for config, spent in tuned(model, tmp_path / "db").times_in_model(name, task.workload)
    }
    assert times[str(rule)] == pytest.approx(1e6)
    assert times[str(other)] is not None
    assert times[str(other)] > 1e4


def test_nothing_is_measured_where_the_rule_won(model: ir.Model, tmp_path: Path) -> None:
    assert not tuned(model, tmp_path / "db").fastest(native().name)
