"""ONNX Runtime's own quantised operators: at most one step from ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt import model as models
from tests.backends.lower.harness import Nodes as StandardNodes
from tests.backends.lower.harness import compiled, fixed
from tests.conftest import reference

RNG = np.random.default_rng(5)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


class Nodes(StandardNodes):
    """Nodes of domain com.microsoft; the outputs take their types from ONNX Runtime."""

    def add(self, op: str, *operands: Any, **attributes: Any) -> str:
        return super().add(op, *operands, domain="com.microsoft", **attributes)

    def compare(self, steps: int) -> None:
        untyped = {name: onnx.helper.make_empty_tensor_value_info(name) for name in self.outputs}
        expected = reference(self._model(untyped), self.feeds)
        model = self._model(
            {name: value_info(name, a) for name, a in zip(self.outputs, expected, strict=True)}
        )
        models.normalise(model)
        for name, want, got in zip(self.outputs, expected, compiled(model, self.feeds), strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape), name
            tolerance = steps if want.dtype.kind != "f" else 1e-5 * np.abs(want).max()
            np.testing.assert_allclose(got.astype(float), want.astype(float), 0, tolerance, err_msg=name)

    def _model(self, outputs: dict[str, onnx.ValueInfoProto]) -> ir.Model:
        inputs = [value_info(name, array) for name, array in self.feeds.items()]
        graph = onnx.helper.make_graph(self.nodes, "nodes", inputs, list(outputs.values()), self.initializers)
        imports = [onnx.helper.make_opsetid("", self.opset), onnx.helper.make_opsetid("com.microsoft", 1)]
        return ir.from_proto(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10))


def value_info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    )


def parameters(scale: float, shift: Any) -> tuple[np.ndarray, np.ndarray]:
    return fixed(np.float32(scale)), fixed(shift)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_elementwise(dtype: type) -> None:
    nodes = Nodes()
    a, b, c = parameters(0.02, dtype(3)), parameters(0.05, dtype(10)), parameters(0.07, dtype(5))
    x, y = integers(dtype, 2, 5, 17), integers(dtype, 5, 1)
    nodes.add("QLinearAdd", x, *a, integers(dtype, 2, 5, 17), *b, *c)
    nodes.add("QLinearAdd", x, *a, y, *b, *c)
    nodes.add("QLinearMul", x, *a, y, *b, *c)
    nodes.add("QLinearSigmoid", x, *a, *parameters(1 / 256, dtype(0)))
    nodes.add("QLinearLeakyRelu", x, *b, *c, alpha=0.2)
    nodes.add("QLinearSoftmax", x, *a, *parameters(1 / 256, dtype(0)), axis=-1, opset=13)
    nodes.add("QLinearSoftmax", x, *a, *parameters(1 / 256, dtype(0)), axis=1, opset=12)
    nodes.compare(steps=1)


def test_pooling_and_concat() -> None:
    nodes = Nodes()
    a, b, c = parameters(0.02, np.uint8(3)), parameters(0.05, np.uint8(10)), parameters(0.07, np.uint8(5))
    image = integers(np.uint8, 2, 5, 9, 7)
    nodes.add("QLinearGlobalAveragePool", image, *a, *b)
    nodes.add("QLinearGlobalAveragePool", image, *a, *b, channels_last=1)
    nodes.add("QLinearAveragePool", image, *a, *b, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
    nodes.add(
        "QLinearAveragePool", image, *a, *b, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    )
    nodes.add("QLinearConcat", *c, image, *a, integers(np.uint8, 2, 3, 9, 7), *b, axis=1)
    nodes.compare(steps=1)


def test_products() -> None:
    nodes = Nodes()
    a, b, c = parameters(0.02, np.uint8(3)), parameters(0.01, np.int8(-2)), parameters(0.3, np.uint8(5))
    left, right = integers(np.uint8, 7, 19), fixed(integers(np.int8, 33, 19))
    bias = fixed(RNG.integers(-999, 999, 33).astype(np.int32))
    nodes.add("QGemm", left, *a, right, *b, bias, *c, transB=1)
    nodes.add("QGemm", left, *a, right, *b, bias, transB=1, alpha=0.5)
    scales = fixed(np.linspace(0.01, 0.05, 33).astype(np.float32))
    matrix, floats = fixed(integers(np.int8, 19, 33)), fixed(RNG.standard_normal(33).astype(np.float32))
    nodes.add("MatMulIntegerToFloat", left, matrix, a[0], scales, a[1], None, floats)
    nodes.add(
        "DynamicQuantizeMatMul", RNG.standard_normal((7, 19)).astype(np.float32), matrix, scales, None, floats
    )
    nodes.compare(steps=1)
