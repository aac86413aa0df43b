"""The machine's own limits, measured."""

import pytest

from graphopt.backends.peak import measure_peak
from graphopt.backends.targets import native
from graphopt.errors import TargetError


def test_both_limits_are_found() -> None:
    found = measure_peak(2, native().lanes)
    assert found.gflops > 1
    assert found.gbytes_s > 0.1


def test_a_missing_compiler_is_told() -> None:
    with pytest.raises(TargetError, match="cannot be measured"):
        measure_peak(1, 4, cc="no-such-compiler")
