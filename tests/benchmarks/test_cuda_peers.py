"""What the benchmark next to torch makes of its measurements."""

import pytest

peers = pytest.importorskip("cuda_peers", reason="torch is not installed", exc_type=ImportError)


def test_ratios_are_taken_within_a_repetition() -> None:
    repeated = [{"graphopt ms": 1.0, "torch graph ms": slower} for slower in (2.0, 4.0, 8.0)]
    assert peers.summary(repeated) == {"graphopt ms": 1, "torch graph ms": 4, "spread": 1, "ratio": 0.25}


def test_of_two_passes_the_larger_ratio_counts() -> None:
    first = {"graphopt ms": 1.0, "reduce-overhead ms": 2.0, "ratio": 0.5, "spread": 0.1}
    second = {"graphopt ms": 1.1, "max-autotune ms": 4.0, "ratio": 0.3, "spread": 0.2}
    assert peers.worse({}, first) == first
    both = peers.worse(first, second)
    assert (both["ratio"], both["spread"], both["graphopt ms"]) == (0.5, 0.2, 1.1)
    assert both.keys() > {"reduce-overhead ms", "max-autotune ms"}
