"""Who may import whom: front door -> passes, backends, training -> core, and heavy libraries behind their own doors."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRONT_DOOR = {
    f"graphopt/{name}.py"
    for name in (
        "__init__",
        "__main__",
        "api",
        "building",
        "cli",
        "cli_compressing",
        "cli_distilling",
        "cli_looking",
        "cli_measuring",
        "cli_pruning",
        "cli_quantizing",
        "clusterer",
        "compressing",
        "pareto",
        "clustering",
        "cli_sparsifying",
        "distilling",
        "doctor",
        "generating",
        "inspection",
        "judging",
        "latency",
        "lossy_options",
        "lossy_steps",
        "manifest",
        "measuring",
        "onnx_backend",
        "options",
        "precision",
        "presets",
        "picture",
        "pruner",
        "pruning",
        "pruning_targets",
        "quantizer",
        "quantizing",
        "reconstruction",
        "recovery",
        "shortening",
        "sparsifying",
    )
}
# Import -> where it may stand: folders end with a slash.
ALLOWED = {
    "graphopt.passes": {"passes/", *FRONT_DOOR},
    "graphopt.backends": {"backends/", *FRONT_DOOR},
    "graphopt.training": {"training/", *FRONT_DOOR},
    "graphopt.api": FRONT_DOOR,
    "graphopt.cli": FRONT_DOOR,
    "passes": set(),
    "backends": set(),
    "tvm": {"backends/"},
    "tvm_ffi": {"backends/"},
    "onnxruntime": {"graphopt/verify.py", "backends/peers/"},
    "openvino": {"backends/peers/"},
    "torch": {"backends/peers/", "training/"},
    "onnx2torch": {"backends/peers/"},
    "ray": {"backends/tune/ray_builders.py"},
    "click": {
        "graphopt/cli.py",
        "graphopt/cli_compressing.py",
        "graphopt/cli_distilling.py",
        "graphopt/cli_looking.py",
        "graphopt/cli_pruning.py",
        "graphopt/cli_quantizing.py",
        "graphopt/cli_sparsifying.py",
        "graphopt/commands.py",
        "graphopt/lossy_options.py",
        "graphopt/options.py",
        "graphopt/parameters.py",
        "graphopt/printing.py",
    },
    "rich": {"graphopt/progress.py", "graphopt/report.py"},
}


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("graphopt", "passes", "backends", "training"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text()


def imported(source: str) -> set[str]:
    """Every module that a source imports, lazily or not."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(path: str, source: str) -> list[str]:
    return [
        f"{path} imports {name}"
        for name in sorted(imported(source))
        for module, places in ALLOWED.items()
        if (name == module or name.startswith(f"{module}."))
        and not any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)
    ]


def test_import_direction() -> None:
    assert [line for path, source in sources() for line in violations(path, source)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("passes/fold.py", "import graphopt.backends"),
        ("backends/lower/conv.py", "from graphopt import passes"),
        ("training/executor/module.py", "from graphopt.passes import preset"),
        ("passes/quantize/qdq.py", "from graphopt.training import executor"),
        ("graphopt/evaluation.py", "import torch"),
        ("graphopt/model/reading.py", "def f():\n    from graphopt.passes.fold import Fold"),
        ("graphopt/bench.py", "import onnxruntime as ort"),
        ("passes/fold.py", "from tvm import relax"),
        ("graphopt/pipeline.py", "from graphopt.api import compile"),
        ("graphopt/data.py", "import click"),
    ],
)
def test_a_violation_is_found(path: str, source: str) -> None:
    assert violations(path, source)


def test_import_is_light() -> None:
    code = "import graphopt, sys; print(*sorted({'tvm', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
