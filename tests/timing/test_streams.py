import threading
from typing import Any

import numpy as np
import pytest

from graphopt.errors import InputError
from graphopt.timing.streams import Load, measure_streams


class Model:
    """Counts how many threads are inside at the same time."""

    threads = 1

    def __init__(self, streams: int) -> None:
        self.calls = 0
        self._meeting = threading.Barrier(streams)
        self._lock = threading.Lock()

    def run(self, names: Any, feeds: Any) -> list[Any]:
        if threading.current_thread() is threading.main_thread():
            return []
        with self._lock:
            self.calls += 1
        self._meeting.wait(timeout=10)
        return []


def test_callers_run_at_the_same_time() -> None:
    model = Model(3)
    load = measure_streams("m", model, {}, streams=3, calls=4)  # type: ignore[arg-type]
    assert model.calls == len(load.times_ms) == 12
    assert load.calls_per_s > 0


def test_a_wrong_feed_is_reported_before_any_thread_starts() -> None:
    class Strict(Model):
        def run(self, names: Any, feeds: Any) -> list[Any]:
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        measure_streams("m", Strict(2), {}, streams=2, calls=1)  # type: ignore[arg-type]


def test_json() -> None:
    content = Load("m", 2, 4, (1.0, 2.0, 3.0), 0.5).to_json()
    assert content["calls_per_s"] == 6
    assert content["median_ms"] == pytest.approx(2)
    assert content["p10_ms"] == pytest.approx(np.percentile([1, 2, 3], 10))
