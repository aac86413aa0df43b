"""ONNX Runtime's own profile of a model: the time of every node that it runs, in its optimised graph."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.arrays import Feeds
from graphopt.timing.layers import NodeTime

SUFFIX = "_kernel_time"
WARMUP_RUNS = 3

Event = Mapping[str, Any]


def profile(model_path: Path, feeds: Feeds, threads: int, runs: int) -> list[NodeTime]:
    """Nodes in order of execution."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
        for _ in range(WARMUP_RUNS + runs):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    return _medians([event for event in events if _is_kernel(event)], runs)


def _is_kernel(event: Event) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith(SUFFIX)


def _medians(events: Sequence[Event], runs: int) -> list[NodeTime]:
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    last: dict[tuple[str, str], Event] = {}
    for event in events:
        key = str(event["name"]).removesuffix(SUFFIX), str(event["args"]["node_index"])
        times[key].append(1e-3 * float(event["dur"]))
        last[key] = event
    return [
        NodeTime(name, event["args"]["op_name"], _macs(event), float(np.median(times[name, index][-runs:])))
        for (name, index), event in last.items()
    ]


def _macs(event: Event) -> int:
    """Multiply-accumulates by the shapes that the profile states."""
    operands, results = (
        [shape for each in event["args"].get(f"{side}_type_shape", ()) for shape in each.values()]
        for side in ("input", "output")
    )
    if not operands or not results:
        return 0
    kind, elements = event["args"]["op_name"], math.prod(map(int, results[0]))
    if "Conv" in kind and len(operands) > 1:
        return elements * math.prod(map(int, operands[1][1:]))
    if any(name in kind for name in ("Gemm", "MatMul")) and operands[0]:
        return elements * int(operands[0][-1])
    return 0
