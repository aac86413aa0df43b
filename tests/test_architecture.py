"""Who may import whom: front door -> passes, backends, training -> core, and heavy libraries behind their own doors."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRONT_DOOR = {
    "graphopt/__init__.py",
    "graphopt/__main__.py",
    "graphopt/api.py",
    "graphopt/onnx_backend.py",
    "graphopt/timing/measuring.py",
    "graphopt/cli/",
    "graphopt/compiling/",
    "graphopt/compression/",
}
# Import -> where it may stand: folders end with a slash.
ALLOWED = {
    "graphopt.passes": {"passes/", *FRONT_DOOR},
    "graphopt.backends": {"backends/", *FRONT_DOOR},
    "graphopt.training": {"training/", *FRONT_DOOR},
    "graphopt.api": FRONT_DOOR,
    "graphopt.compiling": FRONT_DOOR,
    "graphopt.compression": FRONT_DOOR,
    "graphopt.cli": {"graphopt/__main__.py", "graphopt/cli/"},
    "passes": set(),
    "backends": set(),
    "tvm": {"backends/"},
    "tvm_ffi": {"backends/"},
    "onnxruntime": {"graphopt/accuracy/verify.py", "backends/peers/"},
    "openvino": {"backends/peers/"},
    "torch": {"backends/peers/", "training/"},
    "onnx2torch": {"backends/peers/"},
    "ray": {"backends/tune/ray_builders.py"},
    "click": {"graphopt/cli/"},
    "rich": {"graphopt/cli/"},
}

# Room of the core -> the others that it may import.
ROOMS: dict[str, set[str]] = {
    "model": set(),
    "feeds": set(),
    "accuracy": {"model", "feeds"},
    "rewriting": {"model", "accuracy"},
    "artifacts": {"feeds"},
    "timing": {"accuracy"},
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


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_core_import_those_below(room: str) -> None:
    others = {f"graphopt.{other}" for other in set(ROOMS) - ROOMS[room] - {room}}
    files = sorted((ROOT / "graphopt" / room).glob("*.py"))
    assert files
    assert [(file.name, name) for file in files for name in imported(file.read_text()) & others] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("passes/fold.py", "import graphopt.backends"),
        ("backends/lower/conv.py", "from graphopt import passes"),
        ("training/executor/module.py", "from graphopt.passes import preset"),
        ("passes/quantize/qdq.py", "from graphopt.training import executor"),
        ("graphopt/accuracy/evaluation.py", "import torch"),
        ("graphopt/model/reading.py", "def f():\n    from graphopt.passes.fold import Fold"),
        ("graphopt/timing/bench.py", "import onnxruntime as ort"),
        ("passes/fold.py", "from tvm import relax"),
        ("graphopt/rewriting/pipeline.py", "from graphopt.api import compile"),
        ("graphopt/feeds/data.py", "import click"),
    ],
)
def test_a_violation_is_found(path: str, source: str) -> None:
    assert violations(path, source)


def test_import_is_light() -> None:
    code = "import graphopt, sys; print(*sorted({'tvm', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
