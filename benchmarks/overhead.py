"""What a call costs besides arithmetic: a chain of small MatMuls through the C function, next to ONNX Runtime.

`python benchmarks/overhead.py [--length 40] [--size 16]`
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt import api
from graphopt.cli.report import markdown


def chain(length: int, size: int) -> onnx.ModelProto:
    """`length` multiplications by orthogonal matrices, so that values keep their size."""
    rng = np.random.default_rng(0)
    weights = [np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32) for _ in range(length)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(length)]
    shape = [size, size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{length}", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor(f"w{i}", TensorProto.FLOAT, shape, weight.tobytes(), raw=True)
            for i, weight in enumerate(weights)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--size", type=int, default=16)
    chosen = parser.parse_args()
    model = chain(chosen.length, chosen.size)
    feeds = {"x0": np.eye(chosen.size, dtype=np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        done = api.build(model, Path(folder) / "chain.gopt")
        compiled = api.load(done.path, threads=1)
        compiled.time(feeds, 10_000)
        ours = [compiled.time(feeds, 10_000) / 10_000 for _ in range(11)]
        python = _python_call(lambda: compiled.run(None, feeds))
    theirs = _python_call(_session(model, feeds))
    rows = [
        ["graphopt, C function", f"{1e6 * float(np.median(ours)):.2f}", f"{1e6 * min(ours):.2f}"],
        ["graphopt, Python call", *python],
        ["onnxruntime, Python call", *theirs],
    ]
    print(f"{chosen.length} MatMuls of {chosen.size}x{chosen.size}, one thread\n")
    print(markdown(["caller", "median µs", "min µs"], rows))


def _session(model: onnx.ModelProto, feeds):  # type: ignore[no-untyped-def]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def _python_call(call) -> list[str]:  # type: ignore[no-untyped-def]
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return [f"{1e6 * float(np.median(times)):.2f}", f"{1e6 * min(times):.2f}"]


if __name__ == "__main__":
    main()
