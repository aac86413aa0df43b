"""The exported files say the same as their torch networks, for other sizes of the free dimensions too."""

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

torch = pytest.importorskip("torch")

import architectures
from architectures import Architecture, departure, export, write
from random_weights import measure_statistics, randomized

QUICK = ("densenet", "shufflenet", "gpt", "lstm")
DYNAMO = ("shufflenet", "bert", "lstm")
SMALLEST = ("torchvision_mobilenet_v3_small", "torchvision_shufflenet_v2_x1_0")


def resized(one: Architecture) -> Architecture:
    """The same network with three examples, and sequences of five tokens."""
    sizes = {"batch": 3, "sequence": 5}
    inputs = {}
    for name, value in one.inputs.items():
        shape = [sizes[one.free[axis]] if axis in one.free else size for axis, size in enumerate(value.shape)]
        inputs[name] = value.new_ones(shape) if name == "mask" else drawn(value, shape)
    return Architecture(one.module, inputs, one.free)


def drawn(like: "torch.Tensor", shape: list[int]) -> "torch.Tensor":
    generator = torch.Generator().manual_seed(2)
    if like.is_floating_point():
        return torch.randn(shape, generator=generator)
    return torch.randint(int(like.max()), shape, generator=generator)


def check(name: str, folder: Path, exporter: str, tolerance: float) -> None:
    path = export(name, folder, exporter)
    one = architectures.ARCHITECTURES[name]()
    assert departure(one, path) < tolerance
    assert departure(resized(one), path) < tolerance


@pytest.mark.parametrize("name", QUICK)
def test_script(tmp_path: Path, name: str) -> None:
    check(name, tmp_path, "script", 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures.COMPACT if name not in QUICK])
def test_script_of_the_others(tmp_path: Path, name: str) -> None:
    check(name, tmp_path, "script", 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMO)
def test_dynamo(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript", reason="torch's default exporter needs onnxscript")
    check(name, tmp_path, "dynamo", 2e-5)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
@pytest.mark.parametrize("name", SMALLEST)
def test_torchvision(tmp_path: Path, name: str) -> None:
    check(name, tmp_path, "script", 2e-4)


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = export("vgg", tmp_path, "script")
    path.write_bytes(b"kept")
    assert export("vgg", tmp_path, "script").read_bytes() == b"kept"
    assert [one.name for one in tmp_path.iterdir()] == ["vgg.script.onnx"]


def test_the_same_weights_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(architectures.ARCHITECTURES["densenet"](), tmp_path / name, "script")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_departure_sees_a_wrong_weight(tmp_path: Path) -> None:
    path = export("vgg", tmp_path, "script")
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.5, weight.name))
    onnx.save(model, path)
    assert departure(architectures.ARCHITECTURES["vgg"](), path) > 0.01


def test_free_dimensions_have_their_names(tmp_path: Path) -> None:
    graph = onnx.load(export("bert", tmp_path, "script")).graph
    shapes = {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.input
    }
    assert shapes == {"tokens": ["batch", "sequence"], "mask": ["batch", "sequence"]}


def test_normalisations_are_no_identities() -> None:
    net = architectures.ARCHITECTURES["densenet"]().module
    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(layers) == 15
    for layer in layers:
        assert not layer.training
        for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            assert float(values.detach().std()) > 0.01


def test_statistics_are_those_of_the_data() -> None:
    layer = torch.nn.BatchNorm2d(2, momentum=0.3)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), layer).eval()
    with torch.no_grad():
        net[0].weight.fill_(2.0)
        net[0].bias.copy_(torch.tensor([5.0, -5.0]))
    measure_statistics(net, torch.zeros(1, 3, 32, 32))
    assert torch.allclose(layer.running_mean, torch.tensor([5.0, -5.0]), atol=0.3)
    assert torch.allclose(layer.running_var, torch.tensor([12.0, 12.0]), rtol=0.1)
    assert layer.momentum == 0.3
    assert not layer.training


def test_every_kind_of_layer_gets_biases() -> None:
    net = randomized(lambda: torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2)), torch.zeros(1, 8))
    assert float(net[0].in_proj_bias.detach().std()) > 0.01
