"""Models whose weights have few bits, so that it matters how they are rounded."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from sklearn.datasets import load_digits

from graphopt.compiling.presets import run_preset
from graphopt.feeds.data import Dataset
from graphopt.model import edit, load, normalise
from graphopt.rewriting.pipeline import Context

MODELS = Path(__file__).parents[3] / "models"


def digits(count: int = 200) -> Dataset:
    """Images for the models that ship."""
    return Dataset({"image": load_digits().images[:count].astype(np.float32)[:, None]})


def optimised(name: str) -> ir.Model:
    """A model that ships, with few operators."""
    model = load(MODELS / f"{name}.onnx")
    normalise(model)
    run_preset(model, "O2", (), Context())
    return model


def with_few_bits(model: ir.Model, largest: int = 7) -> ir.Model:
    """A copy with weights of convolutions and Gemms as integers up to `largest`, rounded to the nearest, in steps for each filter."""
    copy = model.clone()
    names = edit.Names(copy)
    for node in [each for each in copy.graph if each.op_type in ("Conv", "Gemm")]:
        weight = edit.constant(node.inputs[1])
        assert weight is not None
        axis = 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) else 1
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scales = np.abs(weight).max(axis=others, keepdims=True) / np.float32(largest)
        constants = np.rint(weight / scales).astype(np.int8), scales.reshape(-1)
        inputs = [edit.add_constant(copy.graph, each, names.fresh("constant")) for each in constants]
        made = ir.node("DequantizeLinear", inputs, {"axis": axis})
        made.outputs[0].name = names.fresh("weight")
        copy.graph.insert_before(node, [made])
        node.replace_input_with(1, made.outputs[0])
    return copy


def levels(model: ir.Model) -> dict[str, np.ndarray]:
    """All integer constants of a model."""
    found = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value
    }
    return {name: array for name, array in found.items() if array.dtype == np.int8}
