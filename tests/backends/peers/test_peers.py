from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt_runtime
from graphopt.accuracy.verify import verify
from graphopt.backends.peers import BACKENDS
from graphopt.backends.peers.base import missing
from graphopt.backends.peers.onnxruntime import weight_dtype
from graphopt.feeds.random_feeds import random_feeds

MODELS = Path(__file__).parents[3] / "models"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("model", ["digits_cnn", "digits_transformer"])
def test_a_peer_agrees_with_the_reference(backend: str, model: str) -> None:
    reason = BACKENDS[backend].available()
    if reason:
        pytest.skip(reason)
    path = MODELS / f"{model}.onnx"
    runner = BACKENDS[backend].load(path, 1)
    loaded = ir.load(path)
    verdict = verify(loaded, runner.run, [random_feeds(loaded, seed) for seed in range(2)])
    assert verdict.passed, str(verdict)
    assert runner.precision == "float32"


def test_missing_modules_are_named_with_a_remedy() -> None:
    assert (
        missing(("numpy", "no_such_module"), "pip install it")
        == "no_such_module not installed: pip install it"
    )
    assert missing(("numpy",), "") is None


def test_weight_dtype_goes_by_elements() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    assert weight_dtype(model) == "float32"
    for name, array in (
        ("scale", np.zeros(9, np.float32)),
        ("other", np.zeros(9, np.float32)),
        ("w", np.zeros(20, np.int8)),
    ):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert weight_dtype(model) == "int8"


class _Compiled:
    """What the artifact backend uses of a compiled model."""

    manifest: ClassVar[dict[str, str]] = {"precision": "bfloat16"}

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="sum"), SimpleNamespace(name="product")]

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feeds["a"] + feeds["b"], feeds["a"] * feeds["b"]]


def test_artifacts_run_through_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        graphopt_runtime, "load", lambda path, threads: asked.append((path, threads)) or _Compiled()
    )
    runner = BACKENDS["graphopt"].load(Path("m.gopt"), 3)
    assert asked == [(Path("m.gopt"), 3)]
    assert runner.precision == "bfloat16"
    outputs = runner.run({"a": np.float32([2]), "b": np.float32([5])})
    assert {name: array.tolist() for name, array in outputs.items()} == {"sum": [7], "product": [10]}
