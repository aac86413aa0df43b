"""Prints the table of the conformance suite after it has run."""

import pytest

import conformance

RESULTS = pytest.StashKey[list[conformance.Result]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


@pytest.fixture
def results(pytestconfig: pytest.Config) -> list[conformance.Result]:
    """Where tests leave what became of them."""
    return pytestconfig.stash[RESULTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(RESULTS, []):
        terminalreporter.section("ONNX backend node tests")
        terminalreporter.write_line(conformance.render(config.stash[RESULTS]))
