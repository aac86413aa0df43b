"""From a loaded numpy to the first result: `python benchmarks/first_result.py [NAME] [--repeats 5]`, by default MobileNetV2.

Every repeat is a process of its own, whose imports are timed apart. Two threads, float32; medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from graphopt import api
from graphopt.cli.report import markdown
from graphopt.compiling import building
from graphopt.model import save
from graphopt.model.variants import Binding, make_variants
from measured_models import binding, model_paths

SETUP = """
import sys, time
import numpy as np
path, threads = sys.argv[1], 2
start = time.perf_counter()
"""

FINISH = """
end = time.perf_counter()
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(1e3 * (imported - start), 1e3 * (end - imported), int(line.split()[1]) / 1024)
"""

TOOLS = {
    "graphopt": """
import graphopt_runtime
imported = time.perf_counter()
model = graphopt_runtime.load(path, threads=threads)
model.run(None, {each.name: np.zeros(each.shape, np.float32) for each in model.get_inputs()})
""",
    "onnxruntime": """
import onnxruntime
imported = time.perf_counter()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
session.run(None, {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()})
""",
    "openvino": """
import openvino
imported = time.perf_counter()
options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
request = openvino.compile_model(path, "CPU", options).create_infer_request()
request.infer([np.zeros(each.shape, np.float32) for each in request.model_inputs])
""",
}


def measure(tool: str, path: Path) -> tuple[float, float, float]:
    """Milliseconds of the imports, milliseconds to the first result, and peak megabytes of one process."""
    command = [sys.executable, "-c", SETUP + TOOLS[tool] + FINISH, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imports, first, peak = map(float, done.stdout.split())
    return imports, first, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="mobilenet_v2_1.0_224_fp32", help="part of a model's name")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    [path, *_] = model_paths(True, [chosen.name])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compiled, fixed = Path(folder) / "model.gopt", Path(folder) / "model.onnx"
        api.build(path, compiled, **binding(path))
        options = binding(path)
        shapes = Binding(options["dims"], options["input_shapes"], {})
        save(make_variants(building.read(path), shapes).models[0], fixed)
        for tool in TOOLS:
            file = compiled if tool == "graphopt" else fixed
            runs = [measure(tool, file) for _ in range(chosen.repeats)]
            rows.append([tool, *(f"{statistics.median(column):.0f}" for column in zip(*runs, strict=True))])
    print(markdown(("tool", "import ms", "load to first result ms", "peak MB"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
