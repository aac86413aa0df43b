"""Reading accepts what ONNX allows and refuses the rest with a ``ModelError``, whatever the bytes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.errors import ModelError
from graphopt.model import load, proto, save, validate
from tests.conftest import make_model, ops

TEXT = '<ir_version: 8, opset_import: ["": 18]>\nagraph (float[2] x) => (float[2] y) {{ {} }}'


def write_text(folder: Path, body: str) -> Path:
    path = folder / "model.onnxtxt"
    path.write_text(TEXT.format(body))
    return path


def write_external(folder: Path, location: str, size: int = 8) -> Path:
    """A model whose initializer ``w`` (two floats) is in the file ``location``."""
    model = onnx.parser.parse_model(TEXT.format("y = Add(x, w)"))
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(size)}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_binary_and_text_are_read(tmp_path: Path) -> None:
    save(make_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "model.onnx")
    assert ops(load(tmp_path / "model.onnx")) == {"Relu": 1}
    assert ops(load(write_text(tmp_path, "y = Neg(x)"))) == {"Neg": 1}


def test_nodes_are_sorted(tmp_path: Path) -> None:
    model = load(write_text(tmp_path, "y = Neg(a) a = Relu(x)"))
    assert [node.op_type for node in model.graph] == ["Relu", "Neg"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a = Add(x, b) b = Relu(a) y = Neg(b)", "cycle"),
        ("y = Relu(x) y = Neg(x)", "'y' is defined twice"),
        ("x = Relu(x) y = Neg(x)", "'x' is defined twice"),
        ("y = ", "not valid ONNX text"),
    ],
)
def test_malformed_graphs_are_refused(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(write_text(tmp_path, body))


def test_two_initializers_of_one_name_are_refused(tmp_path: Path) -> None:
    model = proto(
        make_model("agraph (float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32))
    )
    model.graph.initializer.append(model.graph.initializer[0])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="two initializers called 'w'"):
        load(tmp_path / "model.onnx")


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match="has no graph"):
        load(tmp_path / "empty.onnx")


def test_truncated_files_are_refused_or_read_never_anything_else(tmp_path: Path) -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] y) { a = Add(x, w) y = Relu(a) }", w=np.ones(2, np.float32)
    )
    content = proto(model).SerializeToString()
    path = tmp_path / "model.onnx"
    refused = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            load(path)
        except ModelError:
            refused += 1
    assert refused > len(content) * 0.9


def test_random_damage_is_refused_or_read_never_anything_else(tmp_path: Path) -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] y) { a = Add(x, w) y = Relu(a) }", w=np.ones(2, np.float32)
    )
    content = np.frombuffer(proto(model).SerializeToString(), np.uint8)
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = content.copy()
        damaged[rng.integers(0, content.size, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            load(path)
        except ModelError:
            refused += 1
    assert refused > 0


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(path)


def test_initializer_with_too_little_data_is_refused(tmp_path: Path) -> None:
    model = proto(
        make_model("agraph (float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32))
    )
    model.graph.initializer[0].raw_data = b"\0\0"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w' does not fit"):
        load(tmp_path / "model.onnx")


def test_external_data_is_read(tmp_path: Path) -> None:
    np.array([1, 2], np.float32).tofile(tmp_path / "weights.bin")
    model = load(write_external(tmp_path, "weights.bin"))
    assert model.graph.initializers["w"].const_value.numpy().tolist() == [1, 2]
    validate(model)


def test_external_data_of_an_attribute_is_read(tmp_path: Path) -> None:
    np.array([1, 2], np.float32).tofile(tmp_path / "weights.bin")
    path = write_external(tmp_path, "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.node.insert(
        0, onnx.helper.make_node("Constant", [], ["w"], value=proto.graph.initializer.pop())
    )
    onnx.save(proto, path)
    validate(load(path))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    np.zeros(2, np.float32).tofile(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(write_external(folder, location))


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    np.zeros(2, np.float32).tofile(tmp_path / "weights.bin")
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(write_external(folder, "link.bin"))


def test_external_data_outside_is_refused_for_a_relative_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    np.zeros(2, np.float32).tofile(tmp_path / "weights.bin")
    write_external(folder, "../weights.bin")
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError, match="outside the model's folder"):
        load("model.onnx")


def test_missing_and_short_external_data_are_refused(tmp_path: Path) -> None:
    path = write_external(tmp_path, "weights.bin")
    with pytest.raises(ModelError, match=r"'weights\.bin' is missing"):
        load(path)
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match="too short"):
        load(path)
