"""The light models of the onnx package with real-looking weights: python benchmarks/light.py [FOLDER]

As shipped, every weight is 0.02, so outputs do not depend on the input and activations overflow half
precision. Here weights are He-normal from a seed, and every BatchNormalization gets the mean and variance
that it really sees.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float32]
Make = Callable[[np.random.Generator, onnx.NodeProto, tuple[int, ...]], Array]

DEFAULT_FOLDER = Path("build/light")
IR_VERSION = 8
NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
    "shufflenet", "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip
# Statistics keep this many significant digits, so that they do not depend on the machine that measured them.
STATISTICS_DIGITS = 3
MEASURED_IMAGES = 4
# Added to a measured variance before dividing by its root.
FLOOR = np.array([1e-5], np.float32)


def light_models(folder: Path = DEFAULT_FOLDER, names: tuple[str, ...] = NAMES) -> dict[str, Path]:
    """Paths of the rewritten models by name (``light_resnet50``); writes to ``folder`` what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"light_{name}": folder / f"light_{name}.onnx" for name in names}
    for name, path in paths.items():
        if not path.exists():
            unfinished = path.with_suffix(".part")
            onnx.save(rewrite(original(name), seed=NAMES.index(name.removeprefix("light_"))), unfinished)
            unfinished.rename(path)
    return paths


def original(name: str) -> onnx.ModelProto:
    """A light model as the onnx package ships it."""
    return onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx")


def rewrite(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Replace every ConstantOfShape by an initializer that suits its consumer."""
    graph = model.graph
    model.ir_version = IR_VERSION
    make_weights(graph, np.random.default_rng(seed))
    initializers = {tensor.name for tensor in graph.initializer}
    keep(graph.input, [value for value in graph.input if value.name not in initializers])
    set_statistics(model, seed)
    onnx.checker.check_model(model)
    return model


def make_weights(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Draw the weights in graph order and drop the nodes and shapes that made the constant ones."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    consumers = find_consumers(graph)
    weights = [
        numpy_helper.from_array(draw(rng, *consumers[name], tuple(int(dim) for dim in shapes[shape])), name)
        for name, shape in constants.items()
    ]
    used_shapes = set(constants.values())
    keep(graph.node, [node for node in graph.node if node.op_type != "ConstantOfShape"])
    keep(graph.input, [value for value in graph.input if value.name not in used_shapes])
    kept = [tensor for tensor in graph.initializer if tensor.name not in used_shapes]
    keep(graph.initializer, kept + weights)


def find_consumers(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    """The node and input position that reads each value, seen through Unsqueeze and Reshape."""
    readers = {name: (node, index) for node in graph.node for index, name in enumerate(node.input)}
    for node in graph.node:
        if node.op_type in ("Reshape", "Unsqueeze"):
            readers[node.input[0]] = readers.get(node.output[0], (node, 0))
    return readers


def draw(rng: np.random.Generator, node: onnx.NodeProto, position: int, shape: tuple[int, ...]) -> Array:
    """A weight for one input of a node."""
    return ROLES[node.op_type, position](rng, node, shape)


def he_normal(fan_in: int, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with variance 2 / fan_in: ReLU networks keep the size of their activations."""
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))


def convolution(rng: np.random.Generator, node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    return he_normal(int(np.prod(shape[1:])), rng, shape)


def dense(rng: np.random.Generator, node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return he_normal(shape[-1] if transposed else shape[-2], rng, shape)


def shift(rng: np.random.Generator, node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, np.float32) * np.float32(0.1)


def scale(rng: np.random.Generator, node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


# (operator, input position) -> what is drawn there. A BatchNormalization's mean and variance are measured
# afterwards.
ROLES: dict[tuple[str, int], Make] = {
    ("Conv", 1): convolution,
    ("Conv", 2): shift,
    ("Gemm", 1): dense,
    ("Gemm", 2): shift,
    ("BatchNormalization", 1): scale,
    ("BatchNormalization", 2): shift,
    ("BatchNormalization", 3): shift,
    ("BatchNormalization", 4): scale,
    ("Mul", 1): scale,
    ("Add", 1): shift,
}


def set_statistics(model: onnx.ModelProto, seed: int) -> None:
    """Give every BatchNormalization the mean and variance of its input on seeded random images."""
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    if not norms:
        return
    measured = measure_statistics(model, seed)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in norms:
        for name in node.input[3:5]:
            tensors[name].CopyFrom(numpy_helper.from_array(measured[name], name))


def measure_statistics(model: onnx.ModelProto, seed: int) -> dict[str, Array]:
    """Mean and variance by initializer name, in one run of a copy that normalises with what it measures."""
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [
        part
        for node in copy.graph.node
        for part in (measuring_nodes(node) if node.op_type == "BatchNormalization" else [node])
    ]
    names = [
        name for node in copy.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]
    ]
    keep(copy.graph.node, nodes)
    free_batch(copy.graph)
    copy.graph.output.extend(onnx.ValueInfoProto(name=measured(name)) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = session.get_inputs()[0]
    images = np.random.default_rng(seed).standard_normal((MEASURED_IMAGES, 3, 224, 224), np.float32)
    results = session.run([measured(name) for name in names], {image.name: images})
    return {name: significant(result.ravel()) for name, result in zip(names, results, strict=True)}


def measuring_nodes(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A BatchNormalization by its definition, with the statistics of its own input."""
    value, scale_name, shift_name, mean_name, variance_name = node.input
    mean, variance, output = measured(mean_name), measured(variance_name), node.output[0]

    def inner(part: str) -> str:
        return f"{output}__{part}"

    return [
        helper.make_node("ReduceMean", [value], [mean], axes=[0, 2, 3]),
        helper.make_node("Sub", [value, mean], [inner("centred")]),
        helper.make_node("Mul", [inner("centred"), inner("centred")], [inner("square")]),
        helper.make_node("ReduceMean", [inner("square")], [variance], axes=[0, 2, 3]),
        helper.make_node("Constant", [], [inner("floor")], value=numpy_helper.from_array(FLOOR)),
        helper.make_node("Add", [variance, inner("floor")], [inner("floored")]),
        helper.make_node("Sqrt", [inner("floored")], [inner("deviation")]),
        helper.make_node("Div", [inner("centred"), inner("deviation")], [inner("normal")]),
        helper.make_node("Unsqueeze", [scale_name], [inner("scale")], axes=[1, 2]),
        helper.make_node("Unsqueeze", [shift_name], [inner("shift")], axes=[1, 2]),
        helper.make_node("Mul", [inner("normal"), inner("scale")], [inner("scaled")]),
        helper.make_node("Add", [inner("scaled"), inner("shift")], [output]),
    ]


def free_batch(graph: onnx.GraphProto) -> None:
    """Let the first dimension of inputs and outputs be anything, and forget the shapes in between."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.value_info[:]
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def measured(name: str) -> str:
    return f"{name}__measured"


def significant(values: Array) -> Array:
    """Round to a few significant digits, away from zero variance."""
    size = np.floor(np.log10(np.maximum(np.abs(values), 1e-6)))
    unit = 10.0 ** (size - STATISTICS_DIGITS + 1)
    return (np.round(values / unit) * unit).astype(np.float32)


def keep(field: Any, items: Iterable[Any]) -> None:
    """Replace the content of a repeated protobuf field."""
    copies = list(items)
    del field[:]
    field.extend(copies)


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    for name, path in light_models(chosen).items():
        print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
