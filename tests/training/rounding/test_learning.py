"""Learning how to round whole models of four bits."""

from dataclasses import replace

import numpy as np
import pytest

from graphopt.accuracy.evaluation import Judge
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.training.rounding import LayerRounding, learn_rounding, learning
from tests.training.rounding.harness import digits, levels, optimised, with_few_bits


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_it_beats_the_nearest_level(name: str) -> None:
    teacher = optimised(name)
    student = with_few_bits(teacher)
    data, before = digits(), levels(student)
    nearest = Judge(teacher, digits(1000), 1000).judge(student).sqnr_db
    found = learn_rounding(teacher, student, data, samples=200)
    assert Judge(teacher, digits(1000), 1000).judge(student).sqnr_db > nearest + 1
    assert sum(layer.kept for layer in found) > len(found) / 2
    for constant, old in before.items():
        new = levels(student)[constant]
        assert np.abs(new.astype(int) - old).max() <= 1
        assert np.abs(new).max() <= 7


def test_the_report_counts_what_moved() -> None:
    teacher = optimised("digits_mlp")
    student = with_few_bits(teacher)
    before = list(levels(student).values())
    found = learn_rounding(teacher, student, digits(), samples=100, steps=100)
    after = list(levels(student).values())
    for layer, old, new in zip(found, before, after, strict=True):
        assert (layer.weights, layer.moved if layer.kept else 0) == (old.size, (old != new).sum())


def test_levels_stay_where_nothing_is_gained() -> None:
    teacher = optimised("digits_mlp")
    student = with_few_bits(teacher)
    before = levels(student)
    found = learn_rounding(teacher, student, digits(), samples=100, steps=0)
    assert [layer.kept for layer in found] == [False] * len(found)
    for name, array in levels(student).items():
        np.testing.assert_array_equal(array, before[name])
    worse = LayerRounding("layer", 0.1, 0.2, 3, 9)
    assert not worse.kept
    assert replace(worse, after=0.05).kept


def test_the_same_arguments_give_the_same_levels() -> None:
    teacher = optimised("digits_mlp")
    students = [with_few_bits(teacher) for _ in range(2)]
    for student in students:
        learn_rounding(teacher, student, digits(), samples=64, steps=30, seed=5)
    for first, second in zip(*(levels(student).values() for student in students), strict=True):
        np.testing.assert_array_equal(first, second)


def test_samples_are_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def spy(*arguments: object) -> object:
        counts.append(len(arguments[3]))  # type: ignore[arg-type]
        return original(*arguments)  # type: ignore[arg-type]

    original = learning.learn
    monkeypatch.setattr(learning, "learn", spy)
    monkeypatch.setattr(learning, "MOST_BYTES", 64 * 4 * 30)
    teacher = optimised("digits_mlp")
    learn_rounding(teacher, with_few_bits(teacher), digits(), samples=200, steps=1)
    assert 0 < max(counts) < 40


def test_too_few_samples_are_refused() -> None:
    teacher = optimised("digits_mlp")
    with pytest.raises(DataError, match="8 or more samples"):
        learn_rounding(teacher, with_few_bits(teacher), digits(3), samples=100)


def test_nothing_to_learn_needs_no_data() -> None:
    teacher = optimised("digits_mlp")
    assert learn_rounding(teacher, teacher.clone(), Dataset({}), samples=100) == []
