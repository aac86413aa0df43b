"""Blocks that learn one after the other."""

from dataclasses import replace

import numpy as np
import pytest

from graphopt.accuracy.evaluation import Judge
from graphopt.errors import GraphoptError
from graphopt.training.distillation import Goal, learning
from graphopt.training.distillation.objective import make_objective
from graphopt.training.distillation.stages import Stage, make_stages, stage_at
from tests.training.distillation.harness import digits, disturbed, floats, learn, line, put, shipped


def stages(share: float) -> list[Stage]:
    model = shipped("digits_cnn")
    return make_stages(model, model, make_objective(model, model, Goal()), share)


def test_they_follow_one_another() -> None:
    found = stages(0.6)
    assert [(each.given, each.objective.scores) for each in found[:-1]] == [
        (None, "relu0"),
        ("relu0", "relu1"),
        ("relu1", "relu2"),
    ]
    assert [round(each.begin, 9) for each in found] == [0, 0.2, 0.4, 0.6]
    assert found[-1].objective.scores == "logits"
    assert [stage_at(found, share) for share in (0.0, 0.3, 0.6, 0.99, 1.2)] == [
        found[number] for number in (0, 1, 3, 3, 3)
    ]
    assert found[1].used(0.3) == pytest.approx(0.5)


def test_without_a_share_there_is_one() -> None:
    [whole] = stages(0.0)
    assert (whole.begin, whole.end, whole.given) == (0.0, 1.0, None)


def test_models_without_common_blocks() -> None:
    with pytest.raises(GraphoptError, match="there are no blocks"):
        learn(line(), line(), digits(), Goal("regression"), blocks=0.5)


def test_a_stage_changes_its_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, second, _, whole = stages(0.5)
    alone = [replace(second, begin=0.0, end=1.0), replace(whole, begin=1.0)]
    monkeypatch.setattr(learning, "make_stages", lambda *arguments: alone)
    teacher = shipped("digits_cnn")
    student = teacher.clone()
    put(student, "conv1.weight", floats(disturbed(teacher, 1.0))["conv1.weight"])
    before = floats(student.clone())
    learn(student, teacher, digits(64), epochs=50, blocks=0.5)
    after = floats(student)
    changed = {name for name, array in before.items() if not np.array_equal(array, after[name])}
    assert "conv1.weight" in changed
    assert all("1" in name or "running" in name for name in changed)


def test_a_student_comes_nearer_by_blocks() -> None:
    teacher = shipped("digits_cnn")
    student = disturbed(teacher, 1.0)
    judge = Judge(teacher, digits(600))
    before = judge.judge(student)
    done = learn(student, teacher, digits(), epochs=10, blocks=0.8)
    assert judge.judge(student).sqnr_db > before.sqnr_db + 2
    assert done.rounds[-1].held_out < done.rounds[0].held_out
