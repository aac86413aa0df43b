"""Real models on an NVIDIA GPU: right results, endurance, several threads at once, arrays of torch, and the sanitizer.

`python benchmarks/cuda_cases.py FOLDER` compiles them where there is no GPU, in sets; `python benchmarks/cuda_suite.py run FOLDER/0` checks
one set where there is one, with numpy and graphopt-runtime alone; torch and compute-sanitizer are used where they are installed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

STRICT = 1e-4
OWN_FACTOR = 3.0
"""A result may differ by `STRICT`, or by this many times what ONNX Runtime differs from itself."""

LEAST_COSINE = 0.99
"""Of results in float16 and of models of integers, which round otherwise; less where ONNX Runtime's own results are less alike, as above."""

GIVEN = "{}__given"
"""The input that stands for a quantised value, where a model is cut at those."""

TOOLS = ("memcheck", "racecheck")
SMALL = 1 << 20
"""Bytes of artifacts that are run at once, and under the sanitizer."""

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
Row = dict[str, Any]


def samples(path: Path) -> list[tuple[Arrays, Arrays]]:
    """Inputs and expected results of an artifact."""
    stored = case_of(path)

    def part(kind: str, number: int) -> Arrays:
        prefix = f"{kind}/{number}/"
        return {key.removeprefix(prefix): stored[key] for key in stored.files if key.startswith(prefix)}

    numbers = sorted({int(key.split("/")[1]) for key in stored.files if key.startswith("out/")})
    cases = [(part("in", number), part("out", number)) for number in numbers]
    return [({**feeds, **{GIVEN.format(n): out[n] for n in cut_values(path)}}, out) for feeds, out in cases]


def case_of(path: Path) -> Any:
    return np.load(path.with_name(f"{model_name(path)}.npz"))


def cut_values(path: Path) -> list[str]:
    """The quantised values that a model is cut at."""
    stored = case_of(path)
    return stored["cut"].tolist() if "cut" in stored else []


def model_name(path: Path) -> str:
    return path.name.removesuffix(".gopt").rpartition(".")[0]


def artifacts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gopt"))


def smallest(folder: Path) -> list[Path]:
    """Those small enough to be run often, the smallest first."""
    return sorted((p for p in artifacts(folder) if p.stat().st_size < SMALL), key=lambda p: p.stat().st_size)


def relative(result: Array, expected: Array) -> float:
    """max|a - b| / max|b| of floats, the share of those that differ of others."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return math.inf
    if not expected.size:
        return 0.0
    if expected.dtype.kind != "f":
        return float(np.mean(result != expected))
    if not np.array_equal(np.isfinite(result), np.isfinite(expected)):
        return math.inf
    finite = np.isfinite(expected)
    difference = np.abs(result[finite].astype(np.float64) - expected[finite].astype(np.float64))
    return float(difference.max(initial=0) / max(np.abs(expected[finite]).max(initial=0), 1e-30))


def cosine(result: Array, expected: Array) -> float:
    a, b = (np.nan_to_num(array.astype(np.float64)).ravel() for array in (result, expected))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


def steps(result: Array, expected: Array) -> float:
    """The largest distance of integers."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return math.inf
    return float(np.abs(result.astype(np.int64) - expected.astype(np.int64)).max(initial=0))


def check(path: Path) -> Row:
    """Results of one artifact next to the stored ones."""
    import graphopt_runtime

    errors, cosines, distances, same, differs = [], [], [0.0], [], 0
    cut = set(cut_values(path))
    with graphopt_runtime.load(path) as model:
        for feeds, expected in samples(path):
            found = model(feeds)
            later = {name: array.numpy() for name, array in model(feeds, stream=0).items()}
            differs += sum(not np.array_equal(found[name], later[name], equal_nan=True) for name in found)
            whole = {name for name, value in expected.items() if name in cut and value.dtype.kind in "iu"}
            distances += [steps(found[name], expected[name]) for name in whole]
            errors += [relative(found[name], value) for name, value in expected.items() if name not in whole]
            cosines += [cosine(found[name], value) for name, value in expected.items()]
            same += [found[name].argmax() == value.argmax() for name, value in expected.items() if value.size]
        model.time(feeds, 20)
        ms = 1e3 * statistics.median(model.time(feeds) for _ in range(50))
    row: Row = {"model": model_name(path), "precision": path.name.split(".")[-2]}
    row |= {"max rel err": max(errors, default=0.0), "cosine": min(cosines), "steps": max(distances)}
    row |= limits(path, row["precision"])
    row["result"] = "right" if is_right(row) and not differs else "WRONG"
    return row | {
        "same top-1": f"{sum(map(int, same))} of {len(same)}",
        "differ on a stream": differs,
        "ms": ms,
    }


def limits(path: Path, precision: str) -> Row:
    """What is asked of an artifact: of models that are cut, and in float32, small differences; of others alike directions."""
    stored = case_of(path)
    if "cut" in stored:
        return {"allowed": STRICT}
    if precision == "fp32" and not stored["integers"]:
        return {"allowed": max(STRICT, OWN_FACTOR * float(stored["own"]))}
    return {"least cosine": min(LEAST_COSINE, 1 - OWN_FACTOR * (1 - float(stored["own cosine"])))}


def is_right(row: Row) -> bool:
    """Whether it keeps to its limits, and integers of models that are cut to one step."""
    if "allowed" in row:
        return bool(row["max rel err"] <= row["allowed"]) and row["steps"] <= 1
    return bool(row["cosine"] >= row["least cosine"])


def free_memory() -> int:
    """Bytes that the GPU has left."""
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    driver.cuCtxPushCurrent_v2(context)
    driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    driver.cuDevicePrimaryCtxRelease_v2(0)
    return free.value


def resident() -> int:
    """Bytes of the host's memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def endure(path: Path, runs: int) -> Row:
    """Runs of a small model on the host's arrays, and on a stream into fresh ones of the GPU."""
    import graphopt_runtime

    feeds, _ = samples(path)[0]

    def on_stream(count: int) -> None:
        for _ in range(count):
            model(feeds, stream=0)

    with graphopt_runtime.load(path) as model:
        ways: list[tuple[str, int, Callable[[int], object]]] = [
            ("host", runs, lambda count: model.time(feeds, count)),
            ("stream", runs // 100, on_stream),
        ]
        row: Row = {"model": model_name(path)}
        for name, count, run in ways:
            run(min(1000, count))
            before, start = (resident(), free_memory()), time.perf_counter()
            run(count)
            seconds = time.perf_counter() - start
            row |= {
                f"{name}: runs": count,
                f"{name}: us a run": 1e6 * seconds / count,
                f"{name}: host KiB grown": (resident() - before[0]) / 1024,
                f"{name}: GPU KiB grown": (before[1] - free_memory()) / 1024,
            }
    return row


def together(folder: Path, threads: int = 8, rounds: int = 20) -> Row:
    """Several threads run several models, each thread on a stream of the driver's and without one; results equal those alone."""
    import graphopt_runtime

    paths = smallest(folder)[:6]
    models = [graphopt_runtime.load(path) for path in paths]
    feeds = [samples(path)[0][0] for path in paths]
    alone = [model(feed) for model, feed in zip(models, feeds, strict=True)]

    def work(seed: int) -> int:
        wrong = 0
        for i in range(rounds * len(models)):
            at = (seed + i) % len(models)
            stream = None if seed % 2 else 2
            found = models[at](feeds[at], stream=stream)
            for name, value in found.items():
                host = value if isinstance(value, np.ndarray) else value.numpy()
                wrong += not np.array_equal(host, alone[at][name], equal_nan=True)
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        wrong = sum(pool.map(work, range(threads)))
    return {
        "threads": threads,
        "models": len(models),
        "runs": threads * rounds * len(models),
        "results that differ": wrong,
    }


def microseconds(run: Callable[[], object], wait: Callable[[], object], count: int = 300) -> float:
    for _ in range(20):
        run()
    wait()
    start = time.perf_counter()
    for _ in range(count):
        run()
    wait()
    return 1e6 * (time.perf_counter() - start) / count


def interchange(path: Path) -> Iterator[Row]:
    """Arrays of torch and cupy go in and out without copies, on streams of theirs."""
    import graphopt_runtime

    feeds, expected = samples(path)[0]
    with graphopt_runtime.load(path) as model:
        for library in ("torch", "cupy"):
            try:
                yield {
                    "library": library,
                    "model": model_name(path),
                    **TAKERS[library](model, feeds, expected),
                }
            except ImportError:
                yield {"library": library, "model": model_name(path), "result": "not installed"}


def with_torch(model: Any, feeds: Arrays, expected: Arrays) -> Row:
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        given = {name: torch.from_numpy(value).cuda(non_blocking=True) for name, value in feeds.items()}
        handle = stream if hasattr(stream, "__cuda_stream__") else stream.cuda_stream
        found = model(given, stream=handle)
        taken = {name: torch.from_dlpack(value) for name, value in found.items()}
        lent = {name: torch.full_like(value, -1) for name, value in taken.items()}
        model(given, out=lent, stream=handle)
        results = [(value * 1).cpu().numpy() for each in (taken, lent) for value in each.values()]
    shared = all(taken[name].data_ptr() == found[name].start for name in found)
    wait = stream.synchronize
    with torch.cuda.stream(stream):
        fresh = microseconds(lambda: model(given, stream=handle), wait)
        into = microseconds(lambda: model(given, out=lent, stream=handle), wait)
    waiting = microseconds(lambda: model(given, out=lent), lambda: None)
    return {
        "result": "right" if worst(results, expected) else "WRONG",
        "no copy": shared,
        "protocol": hasattr(stream, "__cuda_stream__"),
        "us a call, fresh results": fresh,
        "us a call, lent": into,
        "us a call, lent, waiting": waiting,
    }


def with_cupy(model: Any, feeds: Arrays, expected: Arrays) -> Row:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        given = {name: cupy.asarray(value) for name, value in feeds.items()}
        handle = stream if hasattr(stream, "__cuda_stream__") else stream.ptr
        found = model(given, stream=handle)
        taken = {name: cupy.from_dlpack(value) for name, value in found.items()}
        results = [cupy.asnumpy(value * 1) for value in taken.values()]
    shared = all(taken[name].data.ptr == found[name].start for name in found)
    return {
        "result": "right" if worst(results, expected) else "WRONG",
        "no copy": shared,
        "protocol": hasattr(stream, "__cuda_stream__"),
    }


TAKERS = {"torch": with_torch, "cupy": with_cupy}


def worst(results: Sequence[Array], expected: Arrays) -> bool:
    """Whether results are those expected, which come in the same order, once or several times."""
    wanted = list(expected.values()) * (len(results) // len(expected))
    return all(relative(found, value) <= 1e-3 for found, value in zip(results, wanted, strict=True))


def sanitize(path: Path) -> Row:
    """What NVIDIA's sanitizer finds in one artifact."""
    row: Row = {"model": model_name(path), "precision": path.name.split(".")[-2]}
    for tool in TOOLS:
        command = ["compute-sanitizer", "--tool", tool, sys.executable, __file__, "run-one", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
        lines = [line.strip("= ") for line in done.stdout.splitlines() if "SUMMARY" in line]
        row[tool] = "; ".join(lines) or f"exit code {done.returncode}: {done.stdout[-200:]}"
    return row


def run(folder: Path, runs: int) -> dict[str, list[Row]]:
    """Everything about one set; each part tells what it found before the next begins."""
    found = {"results": [show(guarded(check, path)) for path in artifacts(folder)]}
    small = smallest(folder)
    if small:
        found |= {
            "threads": [show(together(folder))],
            "endurance": [show(endure(small[0], runs))],
            "arrays of others": [show(row) for row in interchange(small[0])],
        }
    if shutil.which("compute-sanitizer"):
        found["compute-sanitizer"] = [show(guarded(sanitize, path)) for path in small[:6]]
    return found


def guarded(part: Callable[[Path], Row], path: Path) -> Row:
    try:
        return part(path)
    except Exception as error:
        return {"model": model_name(path), "result": f"failed: {type(error).__name__}: {error}"}


def show(row: Row) -> Row:
    cells = (
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )
    print("; ".join(cells), flush=True)
    return row


def machine() -> str:
    """What the results were found on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return "no GPU of NVIDIA's known to nvidia-smi"
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["run", "run-one"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1_000_000, help="of the model that endures")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    chosen = parser.parse_args()
    if chosen.task == "run-one":
        check(chosen.folder)
    else:
        print(machine(), flush=True)
        found = run(chosen.folder, chosen.runs)
        if chosen.json:
            chosen.json.write_text(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main()
