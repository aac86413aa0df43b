"""Classifiers with more than one example at a time."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from graphopt.model import save
from measured_models import batched
from tests.conftest import make_model

MODEL = """g (float[1,3,4] x) => (float[1,2] y) {
    flat = Reshape(x, shape)
    y = MatMul(flat, w)
}"""


def test_a_batch_gives_the_results_of_its_examples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape, w = np.array([1, 12]), rng.standard_normal((12, 2)).astype(np.float32)
    save(make_model(MODEL, shape=shape, w=w), tmp_path / "m.onnx")
    path = batched(tmp_path / "m.onnx", 5, tmp_path / "batched")
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    [y] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(y, x.reshape(5, 12) @ w, rtol=1e-5)
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert batched(tmp_path / "m.onnx", 5, tmp_path / "batched") == path
