"""How near products and convolutions of bytes come to the peak of this machine on bytes, which is measured right after each.

`python benchmarks/integer_peak.py`

Each is a model of one layer whose sums are scaled and rounded to bytes again; the median of its kernel over many runs counts, in the quickest of
three rounds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt import api
from graphopt.cli.report import markdown
from graphopt.timing.layers import Layer, LayerTimes

RUNS, REPEATS = 200, 3
RNG = np.random.default_rng(0)

PRODUCTS = ((256, 1024, 1024), (512, 768, 3072), (1024, 1024, 1024))
"""Rows, columns, and what is summed over."""

CONVOLUTIONS = ((128, 128, 28, 3), (256, 256, 14, 3), (256, 512, 28, 1), (64, 64, 56, 3))
"""Channels, filters, height and width of the image, and of the window."""

COLUMNS = ("layer", "us", "GOP/s", "peak GOP/s", "share")


def model(op: str, shape: tuple[int, ...], weights: np.ndarray, pads: int) -> onnx.ModelProto:
    """A QLinearConv or QLinearMatMul with uint8 activations and a scale for each output channel."""
    channels = weights.shape[0] if op == "QLinearConv" else weights.shape[1]
    constants = {
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
        "weights": weights,
        "scales": np.full(channels, 0.01, np.float32),
        "zeros": np.zeros(channels, np.int8),
        "out_scale": np.float32(0.5),
    }
    inputs = ["x", "scale", "zero", "weights", "scales", "zeros", "out_scale", "zero"]
    node = helper.make_node(op, inputs, ["y"])
    if op == "QLinearConv":
        node.attribute.append(helper.make_attribute("pads", [pads] * 4))
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def layers() -> list[tuple[str, onnx.ModelProto]]:
    """All of them, with a name each."""

    def integers(*shape: int) -> np.ndarray:
        return RNG.integers(-127, 128, shape).astype(np.int8)

    products = [
        (f"product {m} x {n} x {k}", model("QLinearMatMul", (m, k), integers(k, n), 0))
        for m, n, k in PRODUCTS
    ]
    convolutions = [
        (
            f"convolution {size}x{size}, {channels} -> {filters}, {window}x{window}",
            model(
                "QLinearConv",
                (1, channels, size, size),
                integers(filters, channels, window, window),
                window // 2,
            ),
        )
        for channels, filters, size, window in CONVOLUTIONS
    ]
    return [*products, *convolutions]


def profiled(path: Path) -> tuple[LayerTimes, Layer]:
    """The times of a model, and its layer that multiplies."""
    times = api.profile(path, runs=RUNS)
    return times, max(times.layers, key=lambda each: each.macs)


def main() -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, made in layers():
            onnx.save(made, path := Path(folder) / "layer.onnx")
            times, layer = min((profiled(path) for _ in range(REPEATS)), key=lambda found: found[1].ms)
            peak, share = times.peak.integer_gops or float("nan"), f"{100 * times.of_peak(layer):.0f} %"
            rows.append([name, f"{1e3 * layer.ms:.0f}", f"{layer.gflops:.0f}", f"{peak:.0f}", share])
            print(*rows[-1], sep=" | ", flush=True)
    print(f"\n{markdown(COLUMNS, rows)}")


if __name__ == "__main__":
    main()
