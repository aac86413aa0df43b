"""The machine's own limits, measured."""

import pytest

from graphopt.backends.peak import DOTS, measure_peak
from graphopt.backends.targets import native
from graphopt.errors import TargetError


def test_both_limits_are_found() -> None:
    found = measure_peak(2, native().core)
    assert found.gflops > 1
    assert found.gbytes_s > 0.1
    if native().core.dot is not None and native().core.dot.instruction in DOTS:
        assert found.integer_gops is not None
        assert found.integer_gops > found.gflops


def test_a_missing_compiler_is_told() -> None:
    with pytest.raises(TargetError, match="cannot be measured"):
        measure_peak(1, native().core, cc="no-such-compiler")
