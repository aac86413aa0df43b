"""Networks and products of matrices on an NVIDIA GPU, next to torch: `python benchmarks/cuda_peers.py TASK FOLDER [NAME...]`.

`build` compiles them, for which no GPU is needed; `measure` runs them where there is one, with torch and graphopt-runtime alone, and
torch.compile where `--inductor` names its modes. `warm` fills the cache of torch.compile, for several networks at once if it is started so.
A NAME is that of a network, or of a product such as product_fp16_1024_1024_1024. Latencies are medians of three repetitions; `ratio` is the
median of ours over the fastest of torch's, `spread` the largest distance of a repetition from its median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cuda_nets import FUSED, NETS, network

PRODUCTS = ((4096, 4096, 4096), (1024, 1024, 1024), (128, 768, 768), (128, 768, 3072), (128, 3072, 768))
"""Rows, depth, columns."""

PRECISIONS = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
PRODUCT_TYPES = {
    "fp16": ("FLOAT16", "FLOAT16", "MatMul"),
    "bf16": ("FLOAT", "FLOAT", "MatMul"),
    "tf32": ("FLOAT", "FLOAT", "MatMul"),
    "fp32": ("FLOAT", "FLOAT", "MatMul"),
    "int8": ("INT8", "INT32", "MatMulInteger"),
}
"""Of products: the types of operands and results, and the operator."""

KNOWN = {"fp32": torch.float32, "int8": torch.int8}
"""Of products whose right operand is known, as weights are."""

BATCHES = (1, 8)
TARGET = "cuda:sm_90"
PREFIX = "product"
MODES = ("reduce-overhead", "max-autotune")
"""Of torch.compile."""

REPETITIONS = 3

OURS = "graphopt ms"

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A network, its batch and its precision."""

    name: str
    batch: int
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, *NETS[self.name][1])

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    @property
    def layout(self) -> torch.memory_format:
        """That of torch's own convolutions on tensor cores."""
        images = len(self.shape) == 4 and self.precision != "fp32"
        return torch.channels_last if images else torch.preserve_format

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.b{self.batch}.{self.precision}.gopt"

    def allow(self) -> None:
        """Let torch round float32 where that is the precision."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"


def build(folder: Path, names: Sequence[str], cases: Sequence[Case]) -> None:
    """The artifact of every case, and of products of halves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or [product_name(kind, each) for kind in PRODUCT_TYPES for each in PRODUCTS]:
        if name.startswith(PREFIX):
            build_product(folder, name)
    for (name, batch), group in groupby(cases, lambda case: (case.name, case.batch)):
        path = folder / f"{name}.onnx"
        example = torch.zeros(batch, *NETS[name][1])
        torch.onnx.export(network(name), (example,), path, opset_version=18, dynamo=False)
        for case in group:
            compile_model(path, case.path(folder), case.precision)
        path.unlink()


def compile_model(model: Any, path: Path, precision: str) -> None:
    from graphopt import api

    done = api.build(model, path, TARGET, check=False, precision=precision)
    print(path.name, f"{done.bytes / 1e6:.1f} MB, {len(done.layers)} launches", *done.notices, flush=True)


def product_name(kind: str, extents: Sequence[int]) -> str:
    return "_".join(map(str, (PREFIX, kind, *extents)))


def build_product(folder: Path, name: str) -> None:
    """A product whose right operand comes column by column, as weights do."""
    import onnx

    _, kind, *extents = name.split("_")
    rows, depth, columns = map(int, extents)
    imports = [onnx.helper.make_opsetid("", 18)]
    known = (
        [onnx.numpy_helper.from_array(known_weights(kind, depth, columns).numpy(), "w")]
        if kind in KNOWN
        else []
    )
    element, result, operator = PRODUCT_TYPES[kind]
    shapes = {"x": (rows, depth), "w": (columns, depth), "y": (rows, columns)}
    x, w, y = (
        onnx.helper.make_tensor_value_info(
            key, getattr(onnx.TensorProto, result if key == "y" else element), shape
        )
        for key, shape in shapes.items()
    )
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        onnx.helper.make_node(operator, ["x", "t"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "product", [x] if known else [x, w], [y], known)
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    compile_model(model, folder / f"{name}.gopt", kind if kind in ("bf16", "tf32") else "fp32")


def known_weights(kind: str, depth: int, columns: int) -> torch.Tensor:
    """Weights `[columns, depth]` of few values, so that artifacts of them are small."""
    values = np.array([-90, -30, 30, 90], np.int8)
    chosen = values[np.random.default_rng(3).integers(0, len(values), (columns, depth))]
    return torch.from_numpy(chosen).to(KNOWN[kind])


def latency(run: Run, runs: int = 300, seconds: float = 0.3) -> float:
    """Median milliseconds until the results of one call are there, of so many runs or as many as there is time for."""
    for _ in range(20):
        run()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < runs and sum(times) < seconds:
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def kernels(run: Run, runs: int = 20) -> dict[str, float]:
    """Microseconds a call of every kernel, by the profiler. Kernels of ours begin before those in front of them have ended, and wait: that
    is not counted."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(runs):
            run()
        torch.cuda.synchronize()
    on_gpu = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    found: dict[str, list[float]] = {}
    before = 0.0
    for event in sorted(on_gpu, key=lambda event: event.time_range.end):
        start, end = max(event.time_range.start, before), event.time_range.end
        found.setdefault(event.name, []).append(end - start)
        before = end
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
    return partial(_replay, graph, model, x)


def _replay(graph: torch.cuda.CUDAGraph, *read: Any) -> None:
    """Run a graph, which reads the memory of a model and an input, but does not own it."""
    graph.replay()


def ours(path: Path, inputs: Sequence[torch.Tensor], out: torch.Tensor) -> Run:
    """A call on arrays that stay, as a captured graph is."""
    import graphopt_runtime

    return graphopt_runtime.load(path).bind(*inputs, out=[out])


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest result."""
    return float((result.double() - expected).abs().max() / expected.abs().max())


def measure_product(path: Path) -> dict[str, Any]:
    """Microseconds of the kernels that multiply; those that round operands before them are not counted."""
    _, kind, *extents = path.stem.split("_")
    rows, depth, columns = map(int, extents)
    x, w, y, theirs = product_operands(kind, rows, depth, columns)
    run = ours(path, [x] if kind in KNOWN else [x, w], y)
    own = sum(time for name, time in kernels(run).items() if "gemm" in name)
    peers = sum(kernels(theirs).values())
    operations = 2e-6 * rows * depth * columns
    return {
        "type": kind,
        "rows, depth, columns": f"{rows}, {depth}, {columns}",
        "us": own,
        "TFLOP/s": operations / own,
        "cuBLAS us": peers,
        "cuBLAS TFLOP/s": operations / peers,
        "share": peers / own,
        "error": error(y, x.double() @ w.double().T),
    }


def product_operands(
    kind: str, rows: int, depth: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Run]:
    """Both operands and memory for the product, as our kernel takes them, and the product by torch."""
    if kind == "int8":
        x = torch.randint(-128, 128, (rows, depth), device="cuda", dtype=torch.int8)
        w = known_weights(kind, depth, columns).cuda()
        y = torch.zeros(rows, columns, device="cuda", dtype=torch.int32)
        return x, w, y, lambda: torch._int_mm(x, w.T)
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    own = torch.float16 if kind == "fp16" else torch.float32
    x = torch.randn(rows, depth, device="cuda").to(own)
    w = known_weights(kind, depth, columns) if kind in KNOWN else torch.randn(columns, depth) / depth**0.5
    w = w.cuda().to(own)
    y = torch.full((rows, columns), float("nan"), device="cuda", dtype=own)
    left, right = x.to(PRECISIONS[kind]), w.to(PRECISIONS[kind])
    return x, w, y, lambda: left @ right.T


def peer(case: Case, x: torch.Tensor, fused: bool = False) -> tuple[nn.Module, torch.Tensor]:
    """The network in torch, and its input."""
    model = network(case.name, **({"fused": True} if fused else {})).cuda()
    return tuple(each.to(dtype=case.dtype, memory_format=case.layout) for each in (model, x))


def compiled_peer(case: Case, x: torch.Tensor, mode: str) -> Run:
    torch._dynamo.reset()
    model, x = peer(case, x, case.name in FUSED)
    compiled = torch.compile(model, mode=mode)
    return lambda: compiled(x)


def measure_network(case: Case, path: Path, modes: Sequence[str]) -> dict[str, Any]:
    x = torch.randn(case.shape).cuda()
    case.allow()
    expected = network(case.name).cuda().double()(x.double())
    row: dict[str, Any] = {"model": case.name, "batch": case.batch, "precision": case.precision}
    runs: dict[str, Run] = {}
    if path.exists():
        y = torch.full(expected.shape, float("nan"), device="cuda")
        runs[OURS] = ours(path, [x], y)
        runs[OURS]()
        row["error"] = error(y, expected)
    model, input = peer(case, x)
    row["torch error"] = error(model(input), expected)
    runs["torch graph ms"] = captured(model, input)
    if case.name in FUSED:
        runs["fused attention ms"] = captured(*peer(case, x, fused=True))
    found: dict[str, float] = {}
    for mode in modes or [""]:
        turns = runs | ({f"{mode} ms": compiled_peer(case, x, mode)} if mode else {})
        repeated = [{name: latency(run) for name, run in turns.items()} for _ in range(REPETITIONS)]
        found = worse(found, summary(repeated))
    return row | found


def worse(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Both modes of torch.compile took turns with all others, but not with each other: the larger ratio and spread count."""
    largest = {name: max(first[name], second[name]) for name in ("ratio", "spread") if name in first}
    return {**first, **second, **largest}


def summary(repeated: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians of repetitions, and how far they are from them."""
    medians = {name: statistics.median(each[name] for each in repeated) for name in repeated[0]}
    spread = max(abs(each[name] / medians[name] - 1) for each in repeated for name in medians)
    if OURS not in medians:
        return medians | {"spread": spread}
    ratios = [each[OURS] / min(time for name, time in each.items() if name != OURS) for each in repeated]
    return medians | {"spread": spread, "ratio": statistics.median(ratios)}


def measure(
    folder: Path, names: Sequence[str], cases: Sequence[Case], modes: Sequence[str]
) -> list[dict[str, Any]]:
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    rows = []
    with torch.no_grad():
        for kind, each in product(PRODUCT_TYPES, PRODUCTS):
            path = folder / f"{product_name(kind, each)}.gopt"
            if path.exists() and (not names or path.stem in names):
                rows.append(show(measure_product(path)))
        for case in cases:
            rows.append(show(measure_network(case, case.path(folder), modes)))
    for precision, batch in sorted({(case.precision, case.batch) for case in cases}):
        tell_mean(precision, batch, rows)
    return rows


def tell_mean(precision: str, batch: int, rows: Sequence[Mapping[str, Any]]) -> None:
    alike = [row for row in rows if (row.get("precision"), row.get("batch")) == (precision, batch)]
    ratios = [row["ratio"] for row in alike if "ratio" in row]
    if ratios:
        mean = statistics.geometric_mean(ratios)
        print(f"{precision}, batch {batch}: geometric mean of {len(ratios)} ratios {mean:.3f}")


def warm(cases: Sequence[Case], modes: Sequence[str]) -> None:
    """Run what torch.compile makes of every case once."""
    with torch.no_grad():
        for case, mode in product(cases, modes):
            case.allow()
            compiled_peer(case, torch.randn(case.shape).cuda(), mode)()


def show(row: dict[str, Any]) -> dict[str, Any]:
    cells = (f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items())
    print("; ".join(cells), flush=True)
    return row


def parser_of(description: str, tasks: Sequence[str] = ("build", "measure")) -> argparse.ArgumentParser:
    """What benchmarks with a half that builds and one that measures have in common."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=tasks)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    return parser


def do_half(
    chosen: argparse.Namespace, build: Callable[[], None], measure: Callable[[], list[dict[str, Any]]]
) -> None:
    """The half that was asked for."""
    if chosen.task == "build":
        build()
        return
    rows = measure()
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))


def main() -> None:
    parser = parser_of(__doc__ or "", ("build", "warm", "measure"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument(
        "--inductor", nargs="*", choices=MODES, default=[], help="torch.compile too, in these modes"
    )
    chosen = parser.parse_args()
    names = [name for name in chosen.names or NETS if name in NETS]
    cases = [Case(*each) for each in product(names, chosen.batch, chosen.precision)]
    if chosen.task == "warm":
        warm(cases, chosen.inductor or MODES[:1])
        return
    do_half(
        chosen,
        lambda: build(chosen.folder, chosen.names, cases),
        lambda: measure(chosen.folder, chosen.names, cases, chosen.inductor),
    )


if __name__ == "__main__":
    main()
