"""How much has to go for a share of latency, from few measurements."""

from collections.abc import Callable

import pytest

from graphopt.compression.pruning_targets import NEAR, PROBES, search
from graphopt.errors import UnreachableError


class Counted:
    """A latency by ratio, and the ratios that were asked for."""

    def __init__(self, share: Callable[[float], float]) -> None:
        self._share = share
        self.asked: list[float] = []

    def __call__(self, ratio: float) -> float:
        self.asked.append(ratio)
        return self._share(ratio)


LATENCIES: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: 1 - 0.8 * ratio,
    "square": lambda ratio: (1 - 0.7 * ratio) ** 2,
    "steps": lambda ratio: 1 - 0.2 * int(ratio * 4),
    "late": lambda ratio: 1.0 if ratio < 0.8 else 0.3,
    "noise": lambda ratio: 1 - 0.8 * ratio + 0.02 * ((1000 * ratio) % 2 - 1),
}


@pytest.mark.parametrize("wanted", [0.9, 0.6, 0.35])
@pytest.mark.parametrize("name", LATENCIES)
def test_what_is_found_is_quick_enough_and_few_are_measured(name: str, wanted: float) -> None:
    share = Counted(LATENCIES[name])
    found = search(share, wanted)
    assert share(found) <= wanted
    assert len(share.asked) - 1 <= PROBES


@pytest.mark.parametrize("name", ["linear", "square"])
def test_no_more_goes_than_has_to(name: str) -> None:
    share = Counted(LATENCIES[name])
    assert 0.5 * (1 - 3 * NEAR) <= share(search(share, 0.5)) <= 0.5


def test_what_cannot_be_reached_is_told_with_what_is() -> None:
    share = Counted(lambda ratio: 1 - 0.3 * ratio)
    with pytest.raises(UnreachableError, match=r"0\.5 of latency cannot be reached .* 0\.700 would be left"):
        search(share, 0.5)
    assert share.asked == [1.0]
