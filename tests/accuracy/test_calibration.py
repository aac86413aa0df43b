"""One pass over the data: the same statistics whoever makes them."""

import numpy as np
import pytest

from graphopt.accuracy.calibration import batch_size, collect
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.passes.quantize.observers import Seen
from tests.conftest import make_model

RNG = np.random.default_rng(9)
TEXT = "agraph (float[N,4] x) => (float[N,4] y) { r = Relu(x) y = Add(r, r) }"
DATA = Dataset({"x": RNG.standard_normal((100, 4)).astype(np.float32)})


def observed(workers: int) -> list[Seen]:
    points = {name: [Seen()] for name in ("x", "r", "y")}
    collect(make_model(TEXT, 18), points, DATA, 90, lambda stage: None, workers)
    return [observer for observers in points.values() for observer in observers]


def test_processes_see_what_one_sees() -> None:
    for one, several in zip(observed(1), observed(2), strict=True):
        assert vars(one).keys() == vars(several).keys()
        assert (one.low, one.high, one.average, one.batches) == (
            several.low,
            several.high,
            several.average,
            several.batches,
        )
        assert np.array_equal(one.counts, several.counts)
        assert one.counts.sum() == 88 * 4


def test_bad_data_in_a_process_is_an_error_here() -> None:
    bad = Dataset({"x": np.full((40, 4), np.nan, np.float32)})
    with pytest.raises(DataError, match="NaN"):
        collect(make_model(TEXT, 18), {"y": [Seen()]}, bad, 40, lambda stage: None, 2)


def test_weights_that_may_be_given_are_no_samples() -> None:
    model = make_model(
        "agraph (float[1,4] x) => (float[1,4] y) { y = Mul(x, w) }", 8, w=np.ones((4, 4), np.float32)
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    assert batch_size(model, 10) == 1
