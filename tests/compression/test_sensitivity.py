"""The search for layers that stay float: what it measures, in which order, and how it goes on after an interruption."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from graphopt.compression.sensitivity import Journal, Problem, search
from graphopt.errors import DataError, GraphoptError, OutputError

COST = {"a": 3.0, "b": 0.5, "c": 2.0, "d": 0.1, "e": 0.2}


class Counted:
    """A model whose drop is the sum of what its integer layers cost; fails after some measurements."""

    def __init__(self, most: int = 1000) -> None:
        self.drops, self.alone, self.most = 0, 0, most

    def drop_of(self, floats: Sequence[str]) -> float:
        self._count()
        self.drops += 1
        return sum(cost for name, cost in COST.items() if name not in floats)

    def sqnr_of(self, layer: str) -> float:
        self._count()
        self.alone += 1
        return 40 - COST[layer]

    def _count(self) -> None:
        if self.drops + self.alone >= self.most:
            raise KeyboardInterrupt

    @property
    def problem(self) -> Problem:
        return Problem(list(COST), self.drop_of, self.sqnr_of)


@pytest.mark.parametrize(
    ("budget", "floats"),
    [(6, ()), (5, ("a",)), (0.85, ("a", "c")), (0.31, ("a", "c", "b")), (0.0, ("a", "c", "b", "e", "d"))],
)
def test_the_fewest_that_keep_the_budget(budget: float, floats: tuple[str, ...]) -> None:
    found = search(Counted().problem, budget, Journal(None, ""), lambda stage: None)
    assert found.floats == floats
    assert found.trials[0].floats == ()
    assert found.to_json()["float_layers"] == list(floats)


def test_nothing_is_measured_alone_where_all_fit() -> None:
    counted = Counted()
    search(counted.problem, 10, Journal(None, ""), lambda stage: None)
    assert (counted.drops, counted.alone) == (1, 0)


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path, first = tmp_path / "journal", Counted(most=4)
    with pytest.raises(KeyboardInterrupt):
        search(first.problem, 0.85, Journal(path, "it"), lambda stage: None)
    with path.open("a") as file:
        file.write('{"name": "alo')
    second, whole = Counted(), Counted()
    found = search(second.problem, 0.85, Journal(path, "it"), lambda stage: None)
    assert found == search(whole.problem, 0.85, Journal(None, ""), lambda stage: None)
    assert second.drops + second.alone == whole.drops + whole.alone - 4


def test_a_last_line_without_its_end_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"subject": "it"}\n{"name": "a", "value": 1.5}')
    for value in (1.5, 2.5):
        assert Journal(path, "it").remember("a" if value == 1.5 else "b", lambda: 2.5) == value
    assert Journal(path, "it").remember("b", lambda: 9.0) == 2.5


def test_files_that_are_no_journals(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for path in (tmp_path / "binary", tmp_path):
        with pytest.raises(DataError, match="no journal"):
            Journal(path, "it")
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "nowhere" / "journal", "it")


def test_an_original_that_loses_too_is_an_error() -> None:
    problem = Problem(["a", "b"], lambda floats: 1.0, lambda layer: 1.0)
    with pytest.raises(GraphoptError, match="with every layer on floats"):
        search(problem, 0.5, Journal(None, ""), lambda stage: None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"subject": "other"}\n', "another search"),
        ("", "another search"),
        ('{"subject": "it"}\nnothing\n{"name": "drop", "value": 1}\n', "damaged in line 2"),
        ('{"subject": "it"}\n{"nome": 1}\n{"name": "drop", "value": 1}\n', "damaged in line 2"),
    ],
)
def test_journals_of_something_else(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(content)
    with pytest.raises(DataError, match=message):
        Journal(tmp_path / "journal", "it")
