"""One-node models, run by the module and by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from graphopt.training.executor import TorchModel
from tests.conftest import reference

TOLERANCE = 1e-5
"""Largest difference allowed between floats, relative to the largest element."""

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(floats(*shape)) + np.float32(0.1)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def scalar(value: Any, dtype: type = np.float32) -> np.ndarray:
    return np.array(value, dtype)


@dataclass(frozen=True)
class Case:
    """A node: its operands become inputs, None is absent."""

    op: str
    operands: Sequence[np.ndarray | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 20
    outputs: int = 1

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, each.shape)) for each in self.operands if each is not None)
        described = "_".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.op}{self.opset}-{shapes}-{described}".replace(" ", "")[:80]

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{i}": each for i, each in enumerate(self.operands) if each is not None}

    def model(self) -> ir.Model:
        names = ["" if each is None else f"x{i}" for i, each in enumerate(self.operands)]
        results = [f"y{i}" for i in range(self.outputs)]
        node = onnx.helper.make_node(self.op, names, results, **self.attributes)
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in self.feeds.items()
        ]
        given = [onnx.numpy_helper.from_array(array, name) for name, array in self.feeds.items()]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in results]
        graph = onnx.helper.make_graph([node], "one", inputs, outputs, given)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        whole = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
        return ir.from_proto(onnx.shape_inference.infer_shapes(whole, data_prop=True))


def case(op: str, *operands: np.ndarray | None, opset: int = 20, outputs: int = 1, **attributes: Any) -> Case:
    return Case(op, operands, attributes, opset, outputs)


def check(each: Case) -> None:
    """Assert that the module gives what ONNX Runtime does, in types, shapes and values."""
    model = each.model()
    check_model(model, each.feeds)


def check_model(model: ir.Model, feeds: Mapping[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    found = run(TorchModel(model), feeds)
    for value, want in zip(model.graph.outputs, reference(model, feeds), strict=True):
        assert_same(value.name or "", found[value.name or ""], want, tolerance)


def run(module: TorchModel, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs without gradients."""
    with torch.no_grad():
        found = module({name: torch.from_numpy(array) for name, array in feeds.items()})
    return {name: each.numpy() for name, each in found.items()}


def assert_same(name: str, got: np.ndarray, want: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Assert equal types and shapes, and values within the tolerance (integers equal)."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, name)
        return
    allowed = tolerance * max(float(np.abs(want[np.isfinite(want)]).max(initial=0)), 1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=allowed, err_msg=name, equal_nan=True)
