"""Runs of neighbours: every place is held once, and no run reaches beyond the places."""

import pytest

from graphopt.backends.kernels.lanes import runs


@pytest.mark.parametrize(
    ("places", "starts", "extent"),
    [
        (range(8), [0, 4], 4),
        (range(6), [0, 2], 4),
        (range(3), [0, 1], 2),
        ([0], [0], 1),
        (range(0, 12, 2), [0, 4, 7], 4),
        ([0, 5, 10], [0, 5, 7], 4),
    ],
)
def test_runs(places: range | list[int], starts: list[int], extent: int) -> None:
    found = list(runs(list(places), 4))
    assert [run.start for run in found] == starts
    assert {run.extent for run in found} == {extent}
    assert [place for run in found for place in run.places] == list(places)
    assert all(0 <= place - run.start < run.extent for run in found for place in run.places)
