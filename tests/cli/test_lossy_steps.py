"""Steps that change a model one after the other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import pytest

from graphopt.cli.lossy_steps import Progress, Step, take
from graphopt.cli.report import table
from graphopt.errors import GraphoptError
from tests.conftest import make_model

FILE = Path("model.onnx")


def model(name: str) -> ir.Model:
    return make_model(f"{name} (float[2] x) => (float[2] y) {{ y = Relu(x) }}")


def step(title: str, seen: list[Any], warnings: tuple[str, ...] = ()) -> Step:
    """A step that gives out a model of its own name, and adds what it was given to `seen`."""

    def run(given: Path | ir.Model, progress: Progress) -> SimpleNamespace:
        progress(f"{title} runs")
        seen.append(given if isinstance(given, Path) else given.graph.name)
        return SimpleNamespace(model=model(title), warnings=list(warnings))

    return Step(
        title, run, lambda done: f"made {done.model.graph.name}", lambda done: [table([title], [["1"]])]
    )


def test_each_step_takes_what_the_one_before_made() -> None:
    seen: list[Any] = []
    told: list[str] = []
    steps = [step("pruned", seen), None, step("quantised", seen, ("too few samples",))]
    taken = take(steps, FILE, told.append)
    assert seen == [FILE, "pruned"]
    assert isinstance(taken.model, ir.Model)
    assert taken.model.graph.name == "quantised"
    assert taken.notices == ["pruned: made pruned", "too few samples", "quantised: made quantised"]
    assert [each.columns[0].header for each in taken.tables] == ["pruned", "quantised"]
    assert told == ["pruned runs", "quantised runs"]


@pytest.mark.parametrize("steps", [[], [None, None]], ids=["none", "not asked for"])
def test_without_steps_the_model_stays(steps: list[Step | None]) -> None:
    taken = take(steps, FILE, lambda stage: None)
    assert (taken.model, taken.notices, taken.tables) == (FILE, [], [])


def test_after_a_step_that_fails_none_is_taken() -> None:
    seen: list[Any] = []

    def fail(given: Path | ir.Model, progress: Progress) -> None:
        raise GraphoptError("no channel is left")

    broken = Step("broken", fail, str, lambda done: [])
    with pytest.raises(GraphoptError, match="no channel is left"):
        take([step("pruned", seen), broken, step("quantised", seen)], FILE, lambda stage: None)
    assert seen == [FILE]
