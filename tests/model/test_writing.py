"""Files are written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from graphopt.errors import OutputError
from graphopt.model import load, normalise, proto, save, text
from tests.conftest import make_model, reference

FEEDS = {"x": np.array([1, -2], np.float32)}


def add_model():
    weights = np.arange(1000, dtype=np.float32)
    return make_model(
        "agraph (float[2] x) => (float[2] y) { s = ReduceSum<keepdims = 0>(w) y = Add(x, s) }", w=weights
    )


@pytest.mark.parametrize("name", ["model.onnx", "model.onnxtxt"])
def test_what_is_written_can_be_read(tmp_path: Path, name: str) -> None:
    model = add_model()
    save(model, tmp_path / name)
    np.testing.assert_array_equal(reference(load(tmp_path / name), FEEDS), reference(model, FEEDS))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_external_data_goes_next_to_the_model(tmp_path: Path) -> None:
    model = add_model()
    save(model, tmp_path / "model.onnx", external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    again = load(tmp_path / "model.onnx")
    np.testing.assert_array_equal(again.graph.initializers["w"].const_value.numpy(), np.arange(1000))
    save(again, tmp_path / "inside.onnx")
    (tmp_path / "model.onnx.data").unlink()
    np.testing.assert_array_equal(reference(load(tmp_path / "inside.onnx"), FEEDS), reference(model, FEEDS))


def test_a_model_can_be_written_over_the_one_it_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(add_model(), path, external_data=True)
    save(load(path), path, external_data=True)
    np.testing.assert_array_equal(load(path).graph.initializers["w"].const_value.numpy(), np.arange(1000))


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save(add_model(), tmp_path / "missing" / "model.onnx")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save(add_model(), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_value_info_is_about_computed_values(tmp_path: Path) -> None:
    model = add_model()
    normalise(model)
    assert [info.name for info in proto(model).graph.value_info] == ["s"]


def test_text_leaves_long_constants_out() -> None:
    shown = text(add_model())
    assert "float[1000] w" in shown
    assert "ReduceSum" in shown
    assert len(shown) < 1000
