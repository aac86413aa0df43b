from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import light


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rewritten model with convolutions, batch normalisation and Gemm."""
    folder = tmp_path_factory.mktemp("light")
    return light.light_models(folder, ("shufflenet",))["light_shufflenet"]


def test_weights_are_no_longer_constant(shufflenet: Path) -> None:
    model = onnx.load(shufflenet)
    assert not any(node.op_type == "ConstantOfShape" for node in model.graph.node)
    kernels = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    arrays = [numpy_helper.to_array(one) for one in model.graph.initializer if one.name in kernels]
    assert len(arrays) == 50
    assert min(float(array.std()) for array in arrays) > 0.01
    assert [value.name for value in model.graph.input] == ["gpu_0/data_0"]


def test_batch_normalisation_normalises(shufflenet: Path) -> None:
    """With its statistics, the input of the last normalisation has zero mean and unit variance."""
    model = onnx.load(shufflenet)
    last = [node for node in model.graph.node if node.op_type == "BatchNormalization"][-1]
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    model.graph.output.append(onnx.ValueInfoProto(name=last.input[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(5).standard_normal((1, 3, 224, 224), np.float32)
    value = session.run([last.input[0]], {"gpu_0/data_0": image})[0][0]
    mean, variance = (arrays[name][:, None, None] for name in last.input[3:])
    normal = (value - mean) / np.sqrt(variance)
    assert abs(float(normal.mean())) < 0.2
    assert 0.7 < float(normal.std()) < 1.4


def test_output_depends_on_the_input(shufflenet: Path) -> None:
    session = onnxruntime.InferenceSession(shufflenet, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    one, two = (
        session.run(None, {"gpu_0/data_0": rng.standard_normal((1, 3, 224, 224), np.float32)})[0]
        for _ in range(2)
    )
    assert np.abs(one - two).max() > 0.1 * np.abs(one).max()


def test_same_seed_same_bytes(shufflenet: Path, tmp_path: Path) -> None:
    again = light.light_models(tmp_path, ("shufflenet",))["light_shufflenet"]
    assert again.read_bytes() == shufflenet.read_bytes()


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "light_vgg19.onnx").write_text("mine")
    light.light_models(tmp_path, ("vgg19",))
    assert (tmp_path / "light_vgg19.onnx").read_text() == "mine"
