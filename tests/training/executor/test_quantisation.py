"""QuantizeLinear and DequantizeLinear: forward ONNX Runtime's, backward straight through."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

from graphopt.training.executor import TorchModel
from tests.conftest import make_model
from tests.training.executor.harness import Case, case, check, check_model, floats, scalar

TIES = (np.arange(-301, 300, dtype=np.float32) * np.float32(0.25)).reshape(1, 601)
SCALES = np.array([0.5, 0.125, 2], np.float32)
BLOCKS = np.array([[0.5, 0.25, 1], [2, 0.125, 0.5]], np.float32)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng(3).integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


CASES = [
    case("QuantizeLinear", TIES, scalar(0.5)),
    *(case("QuantizeLinear", TIES, scalar(0.5), scalar(3, kind)) for kind in (np.int8, np.uint8)),
    *(
        case("QuantizeLinear", TIES * 1e6, scalar(0.5), scalar(3, kind), opset=21)
        for kind in (np.int16, np.uint16)
    ),
    case("QuantizeLinear", TIES, scalar(0.5), opset=21, output_dtype=TensorProto.INT8),
    case("QuantizeLinear", floats(2, 3, 5) * 50, SCALES, np.array([1, 0, 9], np.uint8)),
    case("QuantizeLinear", floats(3, 5) * 50, SCALES, axis=-2),
    case(
        "QuantizeLinear", floats(4, 3) * 50, BLOCKS, integers(np.int8, 2, 3), opset=21, axis=0, block_size=2
    ),
    case("QuantizeLinear", floats(3, 3) * 50, BLOCKS, opset=21, axis=0, block_size=2),
    *(
        case("DequantizeLinear", integers(kind, 3, 7), scalar(0.5), scalar(3, kind))
        for kind in (np.int8, np.uint8)
    ),
    case("DequantizeLinear", integers(np.int32, 3, 7), scalar(0.5)),
    case("DequantizeLinear", integers(np.int8, 2, 5, 3), SCALES, integers(np.int8, 3), axis=-1),
    case(
        "DequantizeLinear",
        integers(np.int8, 4, 3),
        BLOCKS,
        integers(np.int8, 2, 3),
        opset=21,
        axis=0,
        block_size=2,
    ),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)


MOVED = """agraph (float[1,4,6,6] x) => (float[N,M] y, uint8[A,B,C,D] pooled, int32[K] sums) {
    q = QuantizeLinear(x, s, z)
    pooled = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(q)
    t = Transpose<perm = [0, 2, 3, 1]>(pooled)
    f = Flatten(t)
    c = Concat<axis = 1>(f, more)
    y = DequantizeLinear(c, s, z)
    i = Cast<to = 6>(f)
    h = Div(i, two)
    sums = ReduceSum<keepdims = 0>(h, axes)
}"""


def test_integers_are_exact_for_whoever_reads_them() -> None:
    model = make_model(
        MOVED,
        s=np.float32(0.1),
        z=np.uint8(100),
        more=np.array([[7, 250]], np.uint8),
        two=np.int32(2),
        axes=np.array([1]),
    )
    check_model(model, {"x": floats(1, 4, 6, 6)})


def fake_quantized(**attributes: Any) -> TorchModel:
    model = make_model(
        "agraph (float[N] x) => (float[N] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        s=np.float32(0.5),
        z=np.int8(1),
    )
    return TorchModel(model, **attributes)


def test_gradients_pass_inside_of_the_range_and_stop_outside() -> None:
    x = torch.tensor([-100.0, -64.4, -0.3, 0.0, 0.7, 62.9, 80.0], requires_grad=True)
    result = fake_quantized()({"x": x})["y"]
    torch.testing.assert_close(result.detach(), torch.tensor([-64.5, -64.5, -0.5, 0.0, 0.5, 63.0, 63.0]))
    result.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.0, 1, 1, 1, 1, 1, 0]))


def test_the_scale_can_be_learned() -> None:
    """Its gradient is the error of rounding in steps, and outside of the range the level that elements are clipped to."""
    module = fake_quantized(trainable=["s"])
    module({"x": torch.tensor([0.7, 80.0])})["y"].sum().backward()
    expected = (1 - 0.7 / 0.5) + (127 - 1)
    torch.testing.assert_close(module.learned()["s"].grad, torch.tensor(expected))
