"""The workspaces of a handle: what its calls take turns with."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

MakeProbes = Callable[[int], Any]
OUT_OF_MEMORY = 2


def test_large_arenas_start_on_huge_pages_and_are_used_again(probes: MakeProbes) -> None:
    pool = probes(1)
    first, second = pool.run("arena"), pool.run("arena")
    assert first[0] == 0
    assert first[1][0] == 1
    assert first == second


@pytest.fixture
def greedy(greedy_library: bytes, probes: MakeProbes) -> Any:
    return type(probes(1))(greedy_library, 1)


def test_a_workspace_that_memory_cannot_hold_fails_the_run(greedy: Any) -> None:
    assert greedy.run("count")[0] == OUT_OF_MEMORY


def test_more_calls_at_once_than_spare_workspaces(probes: MakeProbes) -> None:
    pool = probes(2)
    together = threading.Barrier(40)
    results: list[int] = []

    def call() -> None:
        together.wait()
        results.extend(pool.run(name)[0] for name in ("nap", "arena", "nap"))

    threads = [threading.Thread(target=call) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 120
