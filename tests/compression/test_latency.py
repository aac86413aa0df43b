"""Latencies next to each other."""

from pathlib import Path

import numpy as np
import pytest

from graphopt.compiling.building import read
from graphopt.compression.latency import BLOCKS, Meter, ratio_of
from graphopt.errors import GraphoptError, ShapeError
from graphopt.timing.bench import Measurement
from tests.conftest import make_model

MLP = Path(__file__).parents[2] / "models" / "digits_mlp.onnx"


def test_ratios_are_those_of_blocks() -> None:
    """A machine that slows down hits both of a block."""
    drift = np.repeat(np.arange(1, BLOCKS + 1), 4)
    found = ratio_of(Measurement(tuple(2.0 * drift)), Measurement(tuple(1.0 * drift)))
    assert (found.share, found.low, found.high) == (0.5, 0.5, 0.5)
    assert (found.before_ms, found.after_ms) == (16, 8)
    assert str(found) == "16 -> 8 ms, 50 % of latency (50 to 50 % by block)"


def test_what_blocks_differ_by_is_told() -> None:
    after = np.repeat(np.linspace(1, 2, BLOCKS), 4)
    found = ratio_of(Measurement((2.0,) * (4 * BLOCKS)), Measurement(tuple(after)))
    assert 0.5 < found.low < found.share < found.high < 1
    assert found.to_json()["low"] == found.low


def test_a_measurement_that_failed_is_an_error() -> None:
    with pytest.raises(GraphoptError, match="could not be measured: it crashed"):
        ratio_of(Measurement((1.0,) * BLOCKS), Measurement(error="it crashed"))


def test_two_models_are_measured_in_turns() -> None:
    said: list[str] = []
    with Meter(read(MLP), {}, said.append) as meter:
        first, second = meter.compare(read(MLP)), meter.compare(read(MLP))
    assert min(first.before_ms, first.after_ms, second.share) > 0
    assert first.low <= first.share <= first.high
    assert said.count("latency: compile the model before") == 1


def test_free_dimensions_need_sizes() -> None:
    text = "agraph (float[2,seq] x) => (float[2,seq] y) { y = Relu(x) }"
    with Meter(make_model(text), {}, lambda stage: None) as meter, pytest.raises(ShapeError, match="x: seq"):
        meter.compare(make_model(text))
    with Meter(make_model(text), {"seq": 4}, lambda stage: None) as meter:
        assert meter.compare(make_model(text)).share > 0
