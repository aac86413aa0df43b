import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.cli.conftest import invoke, invoke_json

FOREIGN = {"tvm", "tvm_ffi", "onnxruntime", "onnx.reference", "torch", "openvino"}


def test_random_inputs_by_default(artifact: Path) -> None:
    assert "y: float32 [2, 3]" in invoke("run", artifact).stdout


def test_inputs_by_name_and_by_file(artifact: Path) -> None:
    x = np.ones((2, 4), np.float32)
    np.save(artifact.parent / "x.npy", x)
    np.savez(artifact.parent / "x.npz", x=x)
    outputs = [
        invoke("run", artifact, "--input", text).stdout
        for text in (f"x={artifact.parent}/x.npy", artifact.parent / "x.npy", artifact.parent / "x.npz")
    ]
    assert outputs[0] == outputs[1] == outputs[2]


def test_outputs_to_a_file(artifact: Path) -> None:
    result = invoke("run", artifact, "-o", artifact.parent / "out.npz")
    assert result.stdout.strip().endswith("out.npz")
    with np.load(artifact.parent / "out.npz") as outputs:
        assert {name: outputs[name].shape for name in outputs.files} == {"y": (2, 3)}


def test_json(artifact: Path) -> None:
    assert invoke_json("run", artifact) == {"y": {"shape": [2, 3], "dtype": "float32"}}


def imported_by(code: str, *arguments: object) -> set[str]:
    """Modules in memory after some code, in a process of its own."""
    show = "import sys\nprint('\\n'.join(['', *sys.modules]))"
    command = [sys.executable, "-P", "-c", f"{code}\n{show}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    return set(done.stdout.split())


def test_run_needs_neither_tvm_nor_a_reference(artifact: Path) -> None:
    code = "from graphopt.cli.main import main\nmain(['run', *__import__('sys').argv[1:]], standalone_mode=False)"
    modules = imported_by(code, artifact)
    assert "graphopt_runtime" in modules
    assert not FOREIGN & modules


def test_load_needs_numpy_only(artifact: Path) -> None:
    code = (
        "import sys, numpy, graphopt_runtime\n"
        "model = graphopt_runtime.load(sys.argv[1])\n"
        "model(numpy.ones((2, 4), 'float32'))"
    )
    modules = imported_by(code, artifact)
    assert "graphopt_runtime" in modules
    assert not {*FOREIGN, "onnx", "onnx_ir", "graphopt", "click", "rich"} & modules
