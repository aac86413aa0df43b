"""Networks and products of matrices on an NVIDIA GPU, next to torch.

`python benchmarks/cuda_peers.py build FOLDER [NAME...] [--precision fp16]` compiles them, for which no GPU is needed, and
`python benchmarks/cuda_peers.py measure FOLDER [NAME...] [--inductor]` runs them where there is one, with torch and graphopt-runtime alone.

Kernels that wait for those before them count that time as theirs, so the two launches of a product in parts overlap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cuda_nets import FUSED, NETS, network

PRODUCTS = ((4096, 4096, 4096), (1024, 1024, 1024), (128, 768, 768), (128, 768, 3072), (128, 3072, 768))
"""Rows, depth, columns."""

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}
TARGET = "cuda:sm_90"
PREFIX = "product"

Run = Callable[[], Any]


def build(folder: Path, names: Sequence[str], precisions: Sequence[str]) -> None:
    """An artifact of every network and precision, and of every product of halves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or [*map(product_name, PRODUCTS), *NETS]:
        if name.startswith(PREFIX):
            build_product(folder, name)
            continue
        path = folder / f"{name}.onnx"
        example = torch.zeros(NETS[name][1])
        torch.onnx.export(network(name), (example,), path, opset_version=18, dynamo=False)
        for precision in precisions:
            compile_model(path, folder / f"{name}.{precision}.gopt", precision)
        path.unlink()


def compile_model(model: Any, path: Path, precision: str) -> None:
    from graphopt import api

    done = api.build(model, path, TARGET, check=False, precision=precision)
    print(path.name, f"{done.bytes / 1e6:.1f} MB, {len(done.layers)} launches", *done.notices, flush=True)


def product_name(extents: Sequence[int]) -> str:
    return "_".join(map(str, (PREFIX, *extents)))


def product_path(folder: Path, extents: Sequence[int]) -> Path:
    return folder / f"{product_name(extents)}.gopt"


def build_product(folder: Path, name: str) -> None:
    """A product whose right operand comes column by column, as weights do."""
    import onnx

    rows, depth, columns = map(int, name.split("_")[1:])
    shapes = {"x": (rows, depth), "w": (columns, depth), "y": (rows, columns)}
    x, w, y = (
        onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT16, shape)
        for key, shape in shapes.items()
    )
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "product", [x, w], [y])
    imports = [onnx.helper.make_opsetid("", 18)]
    compile_model(
        onnx.helper.make_model(graph, opset_imports=imports, ir_version=8), folder / f"{name}.gopt", "fp32"
    )


def latency(run: Run, runs: int = 300) -> float:
    """Median milliseconds until the results of one call are there."""
    for _ in range(20):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def kernels(run: Run, runs: int = 20) -> dict[str, float]:
    """Microseconds a call of every kernel, by the profiler."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(runs):
            run()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found.setdefault(event.name, []).append(event.device_time)
    return {name: statistics.median(times) * len(times) / runs for name, times in found.items()}


def captured(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Run:
    """A call of a model as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(x)
    replay: Run = graph.replay
    return replay


def ours(path: Path, inputs: Sequence[torch.Tensor], out: torch.Tensor) -> Run:
    import graphopt_runtime

    model = graphopt_runtime.load(path)
    return lambda: model(*inputs, out=[out])


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest result."""
    return float((result.double() - expected).abs().max() / expected.abs().max())


def measure_product(path: Path) -> dict[str, Any]:
    rows, depth, columns = map(int, path.stem.split("_")[1:])
    x = torch.randn(rows, depth, device="cuda").half()
    w = (torch.randn(columns, depth, device="cuda") / depth**0.5).half()
    y = torch.full((rows, columns), float("nan"), device="cuda", dtype=torch.float16)
    run = ours(path, [x, w], y)
    own, theirs = (sum(kernels(each).values()) for each in (run, lambda: x @ w.T))
    operations = 2e-6 * rows * depth * columns
    return {
        "rows, depth, columns": f"{rows}, {depth}, {columns}",
        "us": own,
        "TFLOP/s": operations / own,
        "cuBLAS us": theirs,
        "cuBLAS TFLOP/s": operations / theirs,
        "share": theirs / own,
        "error": error(y, x.double() @ w.double().T),
    }


def measure_network(name: str, precision: str, path: Path, inductor: bool) -> dict[str, Any]:
    model, x = network(name).cuda(), torch.randn(NETS[name][1]).cuda()
    expected = model.double()(x.double())
    row: dict[str, Any] = {"model": name, "precision": precision}
    if path.exists():
        y = torch.full(expected.shape, float("nan"), device="cuda")
        run = ours(path, [x], y)
        row["graphopt ms"] = latency(run)
        row["error"] = error(y, expected)
    dtype = PRECISIONS[precision]
    layout = torch.channels_last if x.ndim == 4 and precision == "fp16" else torch.preserve_format
    model, x = model.to(dtype=dtype, memory_format=layout), x.to(dtype=dtype, memory_format=layout)
    row["torch graph ms"], row["torch error"] = latency(captured(model, x)), error(model(x), expected)
    if name in FUSED:
        fused = network(name, fused=True).cuda().to(dtype)
        row["fused attention ms"] = latency(captured(fused, x))
        model = fused
    if inductor:
        compiled = torch.compile(model, mode="reduce-overhead")
        row["torch.compile ms"] = latency(lambda: compiled(x))
    return row


def measure(folder: Path, names: Sequence[str], inductor: bool) -> list[dict[str, Any]]:
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    rows = []
    with torch.no_grad():
        for path in [] if names else map(partial(product_path, folder), PRODUCTS):
            rows.append(show(measure_product(path)))
        for name in names or NETS:
            for precision in PRECISIONS:
                path = folder / f"{name}.{precision}.gopt"
                rows.append(show(measure_network(name, precision, path, inductor)))
    return rows


def show(row: dict[str, Any]) -> dict[str, Any]:
    cells = (f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items())
    print("; ".join(cells), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["build", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument(
        "--inductor", action="store_true", help="torch.compile too, with mode reduce-overhead"
    )
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    chosen = parser.parse_args()
    if chosen.task == "build":
        build(chosen.folder, chosen.names, chosen.precision)
        return
    rows = measure(chosen.folder, chosen.names, chosen.inductor)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
