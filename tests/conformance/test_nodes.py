"""Every node test of the ONNX backend suite passes or is refused with a reason: no wrong result, no crash."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

import conformance
from tests.conftest import CONFORMANCE

pytestmark = [pytest.mark.conformance, pytest.mark.slow]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Building the suite takes seconds, so it happens only where the marker expression asks for it."""
    wanted = "not conformance" not in metafunc.config.option.markexpr
    cases = conformance.load_cases() if wanted else []
    metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def test_node(case: Any, record_property: Callable[[str, object], None]) -> None:
    result = conformance.run_case(case)
    record_property(CONFORMANCE, asdict(result))
    assert result.status not in conformance.FAILURES, result.reason
    if result.status != "passed":
        pytest.skip(f"{result.status}: {result.reason}")
