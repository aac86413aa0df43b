"""Channels of activations evened out: exact in floats, better in integers, and left alone where it does not help."""

import numpy as np
import onnx_ir as ir

from graphopt.model.inference import infer_shapes
from graphopt.passes.quantize.observers import Channels
from graphopt.passes.quantize.plan import make_plan
from graphopt.passes.quantize.smooth import best_factors, expected_error, products_of, smooth
from tests.conftest import make_model, reference

RNG = np.random.default_rng(3)
X = RNG.standard_normal((64, 16)).astype(np.float32)
X[:, 3] *= 50
M = RNG.standard_normal((16, 8)).astype(np.float32)
TEXT = "agraph (float[64,16] x) => (float[64,8] y, float[64,8] z) { y = MatMul(x, m) z = Gemm<transB = 1>(x, n) }"


def channels(array: np.ndarray) -> Channels:
    found = Channels()
    for part in np.split(array, 4):
        found.add(part)
    return found


def model() -> ir.Model:
    made = make_model(TEXT, 18, m=M, n=np.ascontiguousarray(M.T))
    infer_shapes(made)
    return made


def test_results_stay_and_the_range_shrinks() -> None:
    graph = model()
    before = reference(graph, {"x": X})
    plan = make_plan(graph.graph)
    ((_, readers),) = products_of(plan)
    assert len(readers) == 2
    found = smooth(graph, plan, {("x", -1): channels(X)})
    ((scaled, even),) = found.items()
    assert plan.values == [scaled]
    assert np.subtract(*even.range[::-1]) < np.ptp(X) / 2
    for expected, actual in zip(before, reference(graph, {"x": X}), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


def test_an_outlying_channel_is_expected_to_gain_and_even_ones_to_lose_nothing() -> None:
    seen = channels(X)
    factors = best_factors(seen, [M])
    assert factors is not None
    assert expected_error(seen, M, factors) < expected_error(seen, M, np.ones(16, np.float32)) / 4
    even = channels(np.tile(np.linspace(-1, 1, 64, dtype=np.float32)[:, None], (1, 16)))
    assert best_factors(even, [np.ones((16, 8), np.float32)]) is None


def test_dead_channels_keep_their_factor() -> None:
    silent = X.copy()
    silent[:, 5] = 0
    factors = best_factors(channels(silent), [M])
    assert factors is not None
    assert factors[5] == 1


def test_convolutions_are_not_smoothed() -> None:
    weights = RNG.standard_normal((4, 4, 1, 1)).astype(np.float32)
    graph = make_model("agraph (float[1,4,3,3] x) => (float[1,4,3,3] y) { y = Conv(x, w) }", 18, w=weights)
    infer_shapes(graph)
    assert list(products_of(make_plan(graph.graph))) == []
