import operator
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from graphopt.backends.peers import BACKENDS
from graphopt.timing.bench import Benchmark, Measurement, Schedule, default_threads, measure
from graphopt.timing.worker import Worker, peak_rss_mb

MODEL = Path(__file__).parents[2] / "models" / "digits_mlp.onnx"
FEEDS = {"image": np.zeros((1, 1, 8, 8), np.float32)}
QUICK = Schedule(runs=2, blocks=3, warmup=1, timeout_s=60)


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    """One good backend among failing ones."""
    load = partial(BACKENDS["onnxruntime"].load, MODEL, 1)
    loaders = {
        "good": load,
        "raises": partial(operator.truediv, 1, 0),
        "dies": partial(os._exit, 3),
    }
    expected = {"probabilities": np.full((1, 10), 0.5, np.float32)}
    return measure("mlp", loaders, FEEDS, threads=1, expected=expected, schedule=QUICK)


def test_measured_values(benchmark: Benchmark) -> None:
    good = benchmark.backends["good"]
    assert len(good.times_ms) == 6
    assert 0 < good.p10_ms <= good.median_ms <= good.p90_ms < 1000
    assert good.load_ms > 0
    assert 10 < good.peak_rss_mb < 1000
    assert good.precision == "float32"
    assert good.max_rel_err is not None
    assert 0.5 < good.max_rel_err <= 1


def test_failures_stay_with_their_backend(benchmark: Benchmark) -> None:
    assert benchmark.backends["raises"].error == "ZeroDivisionError: division by zero"
    assert benchmark.backends["dies"].error == "the process died with exit code 3"


def test_json_schema(benchmark: Benchmark) -> None:
    content = benchmark.to_json()
    assert {key: content[key] for key in ("model", "threads", "runs")} == {
        "model": "mlp",
        "threads": 1,
        "runs": 6,
    }
    assert list(content["backends"]["good"]) == [
        "median_ms", "p10_ms", "p90_ms", "load_ms", "peak_rss_mb", "precision", "max_abs_err", "max_rel_err",
    ]  # fmt: skip
    assert list(content["backends"]["dies"]) == ["error"]


def test_a_backend_that_hangs_is_ended() -> None:
    started = time.monotonic()
    result = measure("m", {"slow": partial(time.sleep, 60)}, {}, threads=1, schedule=Schedule(timeout_s=1))
    assert result.backends["slow"].error == "no answer within 1 s"
    assert time.monotonic() - started < 20


def test_without_expected_outputs_there_are_no_errors() -> None:
    load = partial(BACKENDS["onnxruntime"].load, MODEL, 1)
    result = measure("m", {"one": load}, FEEDS, threads=1, schedule=QUICK)
    assert result.backends["one"].max_rel_err is None


def test_a_worker_answers_nothing_after_a_failure() -> None:
    worker = Worker(partial(operator.truediv, 1, 0), {}, 30)
    assert worker.ask("load") is None
    assert worker.ask("peak") is None
    assert worker.error.startswith("ZeroDivisionError")
    worker.stop()


def test_what_a_backend_prints_leaves_standard_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker(partial(print, "noise", flush=True), {}, 30)
    worker.ask("load")
    worker.stop()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "noise" in captured.err


def test_peak_memory_is_the_workers_own() -> None:
    ballast = np.ones(40_000_000)
    assert peak_rss_mb() > 300
    worker = Worker(dict, {}, 30)
    assert worker.ask("peak") < 200
    worker.stop()
    assert ballast.size


def test_percentiles() -> None:
    measurement = Measurement(tuple(float(value) for value in range(101)))
    assert (measurement.p10_ms, measurement.median_ms, measurement.p90_ms) == (10, 50, 90)


def test_default_threads_follow_the_affinity() -> None:
    assert default_threads() == len(os.sched_getaffinity(0))
