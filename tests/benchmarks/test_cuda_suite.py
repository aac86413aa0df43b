"""What counts as right on a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import cuda_cases
import cuda_suite
from graphopt.accuracy.verify import reference
from graphopt.feeds.random_feeds import random_feeds

QUANTISED = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1,4] x) => (float[1,4] y)
<float s = {0.1}, int8 z = {0}> {
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    r = Relu(d)
    p = QuantizeLinear(r, s, z)
    y = DequantizeLinear(p, s, z)
}"""


def artifact(folder: Path, precision: str, **facts: Any) -> Path:
    np.savez(folder / "model.npz", **facts)
    return folder / f"model.{precision}.gopt"


def judged(path: Path, **found: float) -> bool:
    row = {"max rel err": 0.0, "cosine": 1.0, "steps": 0.0, **found}
    return cuda_suite.is_right(row | cuda_suite.limits(path, path.name.split(".")[-2]))


def test_float32_is_held_against_what_onnx_runtime_differs_from_itself(tmp_path: Path) -> None:
    path = artifact(tmp_path, "fp32", integers=False, own=0.01)
    assert judged(path, **{"max rel err": 0.03})
    assert not judged(path, **{"max rel err": 0.031})
    path = artifact(tmp_path, "fp32", integers=False, own=0.0)
    assert not judged(path, **{"max rel err": 2 * cuda_suite.STRICT})


def test_float16_and_integers_are_held_to_directions(tmp_path: Path) -> None:
    for precision, integers in (("fp16", False), ("fp32", True)):
        path = artifact(tmp_path, precision, **{"integers": integers, "own cosine": 1.0})
        assert judged(path, cosine=0.99, **{"max rel err": 1.0})
        assert not judged(path, cosine=0.98)
        path = artifact(tmp_path, precision, **{"integers": integers, "own cosine": 0.98})
        assert judged(path, cosine=0.95)
        assert not judged(path, cosine=0.93)


def test_integers_of_cut_models_may_be_one_step_apart(tmp_path: Path) -> None:
    path = artifact(tmp_path, "fp32", cut=["q"])
    assert judged(path, steps=1.0)
    assert not judged(path, steps=2.0)
    assert not judged(path, **{"max rel err": 2 * cuda_suite.STRICT})


@pytest.mark.parametrize(
    ("result", "distance"),
    [(np.int8([-128, 3]), 255.0), (np.int8([127, 2]), 1.0), (np.int16([127, 3]), np.inf)],
)
def test_steps(result: np.ndarray[Any, Any], distance: float) -> None:
    assert cuda_suite.steps(result, np.int8([127, 3])) == distance


def test_models_are_cut_at_quantised_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given is what the reference computed, so that the model that is cut computes it again."""
    monkeypatch.setattr(
        cuda_cases, "build_artifact", lambda folder, path, precision: kept.append(path.read_bytes()) is None
    )
    kept: list[bytes] = []
    source = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(QUANTISED), source)
    cuda_cases.build_cut(tmp_path, source)
    path = tmp_path / "model_by_operator.fp32.gopt"
    [(feeds, expected)] = cuda_suite.samples(path)
    assert cuda_suite.cut_values(path) == ["q", "p"]
    assert set(feeds) == {"x", "q__given", "p__given"}
    model = cuda_cases.variant(source)
    given = random_feeds(model)
    assert np.array_equal(feeds["x"], given["x"])
    assert np.array_equal(expected["y"], reference(model)(given)["y"])
    cut = onnx.load_from_string(kept[0])
    assert {value.name for value in cut.graph.input} == set(feeds)
    assert {value.name for value in cut.graph.output} == {"y", "q", "p"}


def test_sets_without_small_models_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.fp32.gopt").write_bytes(bytes(cuda_suite.SMALL + 1))
    monkeypatch.setattr(cuda_suite, "check", lambda path: {"model": path.name})
    monkeypatch.setattr(cuda_suite.shutil, "which", lambda name: None)
    assert cuda_suite.run(tmp_path, 1) == {"results": [{"model": "model.fp32.gopt"}]}
