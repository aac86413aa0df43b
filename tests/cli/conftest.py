"""Commands as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result

from graphopt.cli.main import main
from graphopt.model import save
from tests.conftest import make_model

Invoke = Callable[..., Result]

MLP = """mlp (float[batch,4] x) => (float[batch,3] y) {
    h = MatMul(x, w) b = Relu(h) z = Identity(b) y = Add(z, c)
}"""


def invoke(*arguments: object, code: int = 0) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def invoke_json(*arguments: object, code: int = 0) -> Any:
    """What a command writes for `--json -`; nothing else may be on standard output."""
    return json.loads(invoke(*arguments, "--json", "-", code=code).stdout)


def mlp() -> ir.Model:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 3)).astype(np.float32)
    return make_model(MLP, w=weights, c=rng.standard_normal(3).astype(np.float32))


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """A small model with a free first dimension."""
    save(mlp(), path := tmp_path / "mlp.onnx")
    return path


@pytest.fixture(scope="session")
def artifact_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("artifact")
    save(mlp(), folder / "mlp.onnx")
    invoke("compile", folder / "mlp.onnx", "--dim", "batch=2")
    return (folder / "mlp.gopt").read_bytes()


@pytest.fixture
def artifact(tmp_path: Path, artifact_bytes: bytes) -> Path:
    """The same model, compiled for two rows."""
    path = tmp_path / "mlp.gopt"
    path.write_bytes(artifact_bytes)
    return path
