"""Which weights can have zeros, and that matrices and inputs of a layer multiply to what it computes."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model.inference import infer_shapes
from graphopt.passes.sparsify.inputs import rows_of
from graphopt.passes.sparsify.layers import Layer, find_layers
from tests.conftest import make_model, random_feeds, reference

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def the_layer(model: ir.Model) -> Layer:
    layers, _ = find_layers(model.graph)
    (layer,) = layers
    return layer


CONVOLUTIONS = {
    "pointwise": ("<kernel_shape = [1, 1]>", (6, 4, 1, 1)),
    "padded": ("<pads = [1, 0, 2, 1]>", (6, 4, 3, 3)),
    "strided": ("<pads = [1, 1, 1, 1], strides = [2, 3]>", (6, 4, 3, 3)),
    "dilated": ("<pads = [2, 2, 2, 2], dilations = [2, 1]>", (6, 4, 3, 2)),
    "grouped": ("<group = 2, pads = [1, 1, 1, 1]>", (6, 2, 3, 3)),
    "same upper": ('<auto_pad = "SAME_UPPER", strides = [2, 2]>', (6, 4, 3, 3)),
    "same lower": ('<auto_pad = "SAME_LOWER">', (6, 4, 2, 3)),
    "valid": ('<auto_pad = "VALID">', (6, 4, 3, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_patches_times_matrices_are_the_convolution(name: str) -> None:
    attributes, shape = CONVOLUTIONS[name]
    text = f"agraph (float[2,4,7,9] x) => (float[N,C,H,W] y) {{ y = Conv{attributes}(x, w) }}"
    model = make_model(text, w=normal(*shape))
    layer, feeds = the_layer(model), random_feeds(model)
    (expected,) = reference(model, feeds)
    rows, matrices = rows_of(layer)(feeds["x"]), layer.matrices()
    assert matrices.shape[1] == layer.rows
    found = np.moveaxis(rows.astype(np.float64) @ matrices, 0, 1).reshape(2, *expected.shape[2:], -1)
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)


@pytest.mark.parametrize("extents", [(9,), (5, 4, 6)])
def test_patches_of_other_ranks(extents: tuple[int, ...]) -> None:
    inside = ",".join(map(str, (2, 3, *extents)))
    text = f"agraph (float[{inside}] x) => (float y) {{ y = Conv<pads = {[1] * 2 * len(extents)}>(x, w) }}"
    model = make_model(text, w=normal(4, 3, *[3] * len(extents)))
    layer, feeds = the_layer(model), random_feeds(model)
    (expected,) = reference(model, feeds)
    found = (rows_of(layer)(feeds["x"]) @ layer.matrices()).reshape(2, *extents, 4)
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "x", "w"),
    [
        ("MatMul(x, w)", (2, 3, 8), (8, 5)),
        ("Gemm(x, w)", (3, 8), (8, 5)),
        ("Gemm<transB = 1>(x, w)", (3, 8), (5, 8)),
        ("Gemm<transA = 1>(x, w)", (8, 3), (8, 5)),
    ],
)
def test_rows_times_matrices_are_the_product(operator: str, x: tuple[int, ...], w: tuple[int, ...]) -> None:
    text = f"agraph (float[{','.join(map(str, x))}] x) => (float y) {{ y = {operator} }}"
    model = make_model(text, w=normal(*w))
    infer_shapes(model)
    layer, feeds = the_layer(model), random_feeds(model)
    rows, matrices = rows_of(layer)(feeds["x"]), layer.matrices()
    assert layer.rows == 8
    found = (
        (rows @ matrices)[0].reshape(*(2, 3)[2 - len(x) + 1 :], 5) if len(x) == 3 else (rows @ matrices)[0]
    )
    np.testing.assert_allclose(found, reference(model, feeds)[0], atol=1e-5)


def test_a_large_image_is_looked_at_in_places() -> None:
    model = make_model(
        "agraph (float[1,2,90,90] x) => (float[N,C,H,W] y) { y = Conv(x, w) }", w=normal(3, 2, 3, 3)
    )
    rows = rows_of(the_layer(model))(normal(1, 2, 90, 90))
    assert 512 < rows.shape[1] <= 1024


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_what_is_read_is_written(name: str) -> None:
    attributes, shape = CONVOLUTIONS[name]
    text = f"agraph (float[2,4,7,9] x) => (float[N,C,H,W] y) {{ y = Conv{attributes}(x, w) }}"
    weights = normal(*shape)
    layer = the_layer(make_model(text, w=weights))
    layer.write(layer.matrices() * 2)
    assert layer.weight.const_value is not None
    np.testing.assert_array_equal(layer.weight.const_value.numpy(), weights * 2)
    assert layer.weight.const_value.name == "w"


def left_out(text: str, opset: int = 18, **constants: np.ndarray) -> list[str]:
    model = make_model(text, opset, **constants)
    return list(find_layers(model.graph, lambda node: node.op_type == "Gemm")[1].values())


@pytest.mark.parametrize(
    ("body", "w", "reason"),
    [
        ("y = MatMul(x, x)", normal(4, 4), "its weights are computed at run time"),
        ("y = Gemm(x, w)", normal(4, 4), "excluded"),
        ("y = MatMul(x, w)", normal(1, 4, 4), "its weights are no matrix"),
        ("y = MatMul(x, w)", normal(4, 0), "it has no weights"),
        (
            "a = MatMul(x, w) b = Identity(w) y = Add(a, b)",
            normal(4, 4),
            "its weights are read otherwise too",
        ),
        ("y = MatMul(x, w)", RNG.standard_normal((4, 4)), "its weights are DOUBLE"),
        ("y = MatMul(w, w)", normal(4, 4), "its input is constant"),
    ],
)
def test_what_is_no_layer(body: str, w: np.ndarray, reason: str) -> None:
    dtype = "double" if w.dtype == np.float64 else "float"
    found = left_out(f"agraph ({dtype}[4,4] x) => ({dtype}[A,B] y) {{ {body} }}", w=w)
    assert found == [reason]


def test_depthwise_convolutions_are_no_layers() -> None:
    text = "agraph (float[1,4,8,8] x) => (float[N,C,H,W] y) { y = Conv<group = 4>(x, w) }"
    assert left_out(text, w=normal(4, 1, 3, 3)) == ["it is depthwise"]


def test_weights_that_two_nodes_read_alike_are_one_layer() -> None:
    text = "agraph (float[2,4] x) => (float[2,4] y) { a = MatMul(x, w) y = MatMul(a, w) }"
    layers, reasons = find_layers(make_model(text, w=normal(4, 4)).graph)
    assert [len(layer.nodes) for layer in layers] == [2]
    assert not reasons


def test_weights_that_are_read_in_two_ways_are_none() -> None:
    text = "agraph (float[4,4] x) => (float[4,4] y) { [first] a = Gemm<transA = 1>(x, w) [second] y = Gemm(a, w) }"
    layers, reasons = find_layers(make_model(text, w=normal(4, 4)).graph)
    assert not layers
    assert set(reasons) == {"first", "second"}
