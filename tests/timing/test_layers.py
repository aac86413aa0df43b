"""Kernels next to the nodes of ONNX Runtime that do the same work."""

import pytest

from graphopt.timing.layers import Layer, LayerTimes, NodeTime, Peak, beside_peer, chrome_trace


def layer(macs: int, ms: float = 1.0) -> Layer:
    return Layer("gemm", "node", macs, 0, ms)


def test_equal_work_is_matched_in_order() -> None:
    layers = [layer(8), layer(0), layer(8), layer(16), layer(5)]
    nodes = [
        NodeTime("c", "Conv", 16, 3.0),
        NodeTime("a", "Conv", 8, 1.0),
        NodeTime("b", "Conv", 8, 2.0),
        NodeTime("r", "Relu", 0, 9.0),
    ]
    assert [each.peer_ms for each in beside_peer(layers, nodes)] == [1.0, None, 2.0, 3.0, None]


def test_work_and_peak() -> None:
    times = LayerTimes("m", 1, 1, (layer(2_000_000, 0.5), layer(0, 0.0)), Peak(16.0, 1.0), 2.0)
    assert times.total_ms == 0.5
    assert times.layers[0].gflops == pytest.approx(8.0)
    assert times.of_peak(times.layers[0]) == pytest.approx(0.5)
    assert times.layers[1].gflops == 0
    assert times.to_json()["layers"][0]["share"] == 1


def test_share_of_peak_leaves_out_what_saves_multiplications() -> None:
    layers = (layer(4_000_000, 1.0), Layer("winograd", "w", 10**9, 0, 1.0), Layer("pool", "p", 0, 0, 1.0))
    times = LayerTimes("m", 1, 1, layers, Peak(16.0, 1.0), 2.0)
    assert times.reached == pytest.approx(0.5)
    assert LayerTimes("m", 1, 1, layers[1:], Peak(16.0, 1.0), 2.0).reached is None


def test_the_roof_is_what_memory_lets_through() -> None:
    """A kernel of 4 GFLOP/s that moves 0.75 GB/s of 1: a quarter of the peak, three quarters of the roof."""
    layers = (Layer("gemm", "g", 2_000_000, 750_000, 1.0), Layer("conv", "c", 8_000_000, 1000, 1.0))
    times = LayerTimes("m", 1, 1, layers, Peak(16.0, 1.0), 2.0)
    assert times.reached == pytest.approx((0.25 + 1) / 2)
    assert times.of_roof == pytest.approx((0.75 + 1) / 2)


def test_trace_events_follow_each_other() -> None:
    times = LayerTimes("m", 1, 1, (layer(8, 0.5), layer(0, 0.25)), Peak(16.0, 1.0), 2.0)
    events = chrome_trace(times)["traceEvents"]
    assert [(event["ts"], event["dur"]) for event in events] == [(0.0, 500.0), (500.0, 250.0)]
