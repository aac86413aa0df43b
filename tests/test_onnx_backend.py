"""graphopt as `onnx.backend.base.Backend`."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from graphopt import api, onnx_backend
from graphopt.errors import GraphoptError, InputError
from tests.conftest import make_model

X = np.float32([[-1, 2], [3, -4]])


def proto(text: str, opset: int = 18) -> onnx.ModelProto:
    return ir.to_proto(make_model(text, opset))


def test_run_node() -> None:
    (y,) = onnx_backend.run_node(helper.make_node("Relu", ["x"], ["y"]), [X])
    np.testing.assert_array_equal(y, np.maximum(X, 0))


def test_run_node_of_an_older_opset() -> None:
    node = helper.make_node("Clip", ["x"], ["y"], min=0.0, max=1.0)
    (y,) = onnx_backend.run_node(node, [X], opset_version=6)
    np.testing.assert_array_equal(y, np.clip(X, 0, 1))


def test_run_model_by_position_and_by_name() -> None:
    model = proto("g (float[2,2] a, float[2,2] b) => (float[2,2] y) { y = Sub(a, b) }")
    (y,) = onnx_backend.run_model(model, [X, 2 * X])
    np.testing.assert_array_equal(y, -X)
    (y,) = onnx_backend.run_model(model, {"b": 2 * X, "a": X})
    np.testing.assert_array_equal(y, -X)


def test_a_single_array() -> None:
    (y,) = onnx_backend.prepare(proto("g (float[n,2] x) => (float[n,2] y) { y = Neg(x) }")).run(X)
    np.testing.assert_array_equal(y, -X)


def test_too_few_inputs() -> None:
    model = proto("g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }")
    with pytest.raises(InputError, match=r"takes 2 inputs \(a, b\), not 1"):
        onnx_backend.run_model(model, [X[0]])


def test_each_set_of_shapes_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[object] = []
    build = api.compile

    def counting(*arguments: object, **options: object) -> object:
        shapes.append(options["input_shapes"])
        return build(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "compile", counting)
    prepared = onnx_backend.prepare(proto("g (float[n] x) => (float[n] y) { y = Neg(x) }"))
    for size in (2, 3, 2):
        np.testing.assert_array_equal(prepared.run([np.ones(size, np.float32)])[0], -np.ones(size))
    assert shapes == [{"x": (2,)}, {"x": (3,)}]


def test_only_inputs_that_fix_a_shape_are_bound() -> None:
    model = make_model(
        "g (float[2,2] x, int64[1] s, float[4] c) => (float[4] y) { r = Reshape(x, s) y = Add(r, c) }"
    )
    assert onnx_backend.shape_inputs(model) == {"s"}
    prepared = onnx_backend.prepare(ir.to_proto(model))
    (y,) = prepared.run([X, np.array([4]), np.ones(4, np.float32)])
    np.testing.assert_array_equal(y, X.ravel() + 1)


def test_another_value_of_a_bound_input() -> None:
    prepared = onnx_backend.prepare(
        proto("g (float[2,2] x, int64[k] s) => (float[m,n] y) { y = Reshape(x, s) }")
    )
    assert prepared.run([X, np.array([4, 1])])[0].shape == (4, 1)
    assert prepared.run([X, np.array([1, 4])])[0].shape == (1, 4)


def test_data_runs_through_compiled_kernels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ONNX Runtime nor ONNX's reference may compute anything."""
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a reference was asked")

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", refuse)
    monkeypatch.setattr(ReferenceEvaluator, "__init__", refuse)
    (y,) = onnx_backend.run_model(proto("g (float[2,2] x) => (float[2,2] y) { y = Neg(x) }"), [X])
    np.testing.assert_array_equal(y, -X)


def test_refusal_is_an_error_of_ours() -> None:
    with pytest.raises(GraphoptError):
        onnx_backend.run_node(helper.make_node("StringNormalizer", ["x"], ["y"]), [np.array(["a"], object)])


@pytest.mark.parametrize(("device", "there"), [("CPU", True), ("CPU:0", True), ("CUDA", False)])
def test_devices(device: str, there: bool) -> None:
    assert onnx_backend.supports_device(device) is there


def test_compatibility() -> None:
    model = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    assert onnx_backend.Backend.is_compatible(model)
    assert not onnx_backend.Backend.is_compatible(model, "CUDA")
