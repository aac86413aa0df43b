"""The examples are built and run as their README says."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from graphopt import api

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "digits_cnn.onnx"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `graphopt` of this environment, wherever its scripts are."""
    path = tmp_path_factory.mktemp("bin") / "graphopt"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m graphopt "$@"\n')
    path.chmod(0o700)
    return path


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images of digits, and what they show."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images[:20].astype(np.float32), data.target[:20]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_c(command: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "c", tmp_path / "c")
    build = ["make", "-C", tmp_path / "c", f"GRAPHOPT={command}", f"MODEL={MODEL}"]
    subprocess.run(build, check=True, capture_output=True)
    result = subprocess.run([tmp_path / "c" / "build" / "digits"], check=True, capture_output=True, text=True)
    assert result.stdout == "a plain call says 3\na handle says 3; probabilities has 40 bytes\n"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cpp(command: Path, tmp_path: Path) -> None:
    """The build compiles the model, and compiles it again when the model changes, and only then."""
    found = subprocess.run([command, "cmake-dir"], check=True, capture_output=True, text=True).stdout.strip()
    model, build = tmp_path / "model.onnx", tmp_path / "build"
    shutil.copy(MODEL, model)
    configure = ["cmake", "-S", ROOT / "examples" / "cpp", "-B", build, f"-Dgraphopt_DIR={found}"]
    configure += [f"-DMODEL={model}", f"-DGRAPHOPT_COMMAND={command}"]
    subprocess.run(configure, check=True, capture_output=True)
    make = ["cmake", "--build", build]
    assert (
        "Compiling the model digits"
        in subprocess.run(make, check=True, capture_output=True, text=True).stdout
    )
    assert "Compiling" not in subprocess.run(make, check=True, capture_output=True, text=True).stdout
    images, labels = digits()
    text = "\n".join(" ".join(map(str, image.reshape(-1))) for image in images)
    lines = subprocess.run(
        [build / "classify"], input=text, check=True, capture_output=True, text=True
    ).stdout
    assert [int(line.split()[0]) for line in lines.splitlines()] == list(labels)
    model.touch()
    assert "Compiling" in subprocess.run(make, check=True, capture_output=True, text=True).stdout


def test_python(tmp_path: Path) -> None:
    artifact = tmp_path / "digits.gopt"
    api.build(MODEL, artifact, check=False)
    service = [sys.executable, ROOT / "examples" / "python" / "service.py", artifact, "--port", "0"]
    with subprocess.Popen(service, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split()[-1]
            images, labels = digits()
            for image, label in zip(images, labels, strict=True):
                assert ask(port, json.dumps(image[None, None].tolist()))["class"] == label
            with pytest.raises(urllib.error.HTTPError, match="400"):
                ask(port, "[1, 2]")
        finally:
            process.kill()


def ask(port: str, body: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", body.encode()) as answer:
        found: dict[str, float] = json.load(answer)
        return found
