"""Weights are decoded at most once, and the message they came in stays as it was."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.model.tensors import RawTensor, held

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def message(array: np.ndarray = ARRAY) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, "w")


def test_the_array_is_decoded_once() -> None:
    tensor = held(ir.TensorProtoTensor(message()))
    assert isinstance(tensor, RawTensor)
    np.testing.assert_array_equal(tensor.numpy(), ARRAY)
    assert tensor.numpy() is tensor.numpy()
    assert held(tensor) is tensor


def test_renaming_leaves_the_message_alone() -> None:
    source = message()
    tensor = RawTensor(source)
    tensor.name = "v"
    assert ir.to_proto(tensor).name == "v"
    assert source.name == "w"
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(ir.to_proto(tensor)), ARRAY)


@pytest.mark.parametrize(
    "source",
    [
        onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 3], ARRAY.reshape(-1)),
        onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [2], [1, -2]),
    ],
    ids=["numbers", "packed"],
)
def test_other_encodings_become_arrays(source: onnx.TensorProto) -> None:
    tensor = held(ir.TensorProtoTensor(source))
    assert isinstance(tensor, ir.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), ir.TensorProtoTensor(source).numpy())


def test_strings_stay() -> None:
    tensor = ir.TensorProtoTensor(onnx.helper.make_tensor("w", onnx.TensorProto.STRING, [1], [b"a"]))
    assert held(tensor) is tensor
