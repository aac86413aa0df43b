"""Which verdict counts."""

from graphopt.accuracy.comparison import Comparison
from graphopt.accuracy.verify import Verdict
from graphopt.compiling.judging import severity


def test_a_failure_outranks_what_could_not_be_verified() -> None:
    unverified = Verdict(not_verified="no reference")
    failed = Verdict((Comparison("y", "float32", 1.0, 1.0, 1e-4),))
    passed = Verdict((Comparison("y", "float32", 0.0, 0.0, 1e-4),))
    assert sorted([passed, unverified, failed], key=severity) == [failed, unverified, passed]


def test_of_two_successes_the_larger_error_counts() -> None:
    exact, rounded = (Verdict((Comparison("y", "float32", e, e, 1e-1),)) for e in (1e-7, 1e-2))
    assert min([exact, rounded], key=severity) == rounded
