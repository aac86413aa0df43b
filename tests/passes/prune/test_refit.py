"""Weights that are fitted to results."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import edit, infer_shapes
from graphopt.passes.prune.refit import FEWEST, Layer, Places, fit, inputs, layers
from tests.conftest import make_model, random_feeds, reference
from tests.passes.prune.checking import random

CONVOLUTIONS = {
    "plain": ("group = 1", (2, 6, 9, 9), (4, 6, 3, 3)),
    "strided": ("strides = [2,3]", (2, 6, 9, 9), (4, 6, 3, 3)),
    "dilated": ("dilations = [2,1]", (2, 6, 9, 9), (4, 6, 3, 3)),
    "padded": ("pads = [1,2,0,1]", (2, 6, 9, 9), (4, 6, 3, 3)),
    "all of it": ("pads = [1,2,2,1], strides = [2,1], dilations = [1,2]", (3, 6, 9, 9), (4, 6, 3, 2)),
    "1-D": ("pads = [1,0], strides = [2]", (4, 6, 20), (4, 6, 3)),
    "depthwise": ("group = 6, pads = [1,1,1,1]", (4, 6, 9, 9), (6, 1, 3, 3)),
}
PRODUCTS = {
    "Gemm": ("y = Gemm(x, w, b)", (60, 6), (6, 4)),
    "Gemm turned": ("y = Gemm <transB = 1> (x, w, b)", (60, 6), (4, 6)),
    "Gemm without a bias": ("y = Gemm(x, w)", (60, 6), (6, 4)),
    "MatMul without a bias": ("y = MatMul(x, w)", (5, 12, 6), (6, 4)),
    "MatMul": ("t = MatMul(x, w) y = Add(t, b)", (5, 12, 6), (6, 4)),
}
CASES = {
    **{name: (f"y = Conv <{form}> (x, w, b)", *shapes) for name, (form, *shapes) in CONVOLUTIONS.items()},
    **PRODUCTS,
}


def one_layer(name: str) -> tuple[ir.Model, Layer]:
    body, image, weight = CASES[name]
    results = 4 if name in PRODUCTS else weight[0]
    text = f"agraph (float[{','.join(map(str, image))}] x) => (float[{','.join('ABCD'[: len(image)])}] y) {{ {body} }}"
    model = make_model(text, w=random(*weight), b=random(results, seed=5))
    infer_shapes(model)
    model.graph[0].name = "layer"
    (layer,) = layers(model.graph)
    return model, layer


@pytest.mark.parametrize("name", CASES)
def test_inputs_times_weights_are_results(name: str) -> None:
    model, layer = one_layer(name)
    feeds = random_feeds(model)
    model.graph.outputs[0] = layer.node.outputs[0]
    (results,) = reference(model, feeds)
    places = Places.draw(results.shape, layer.axis, 50, np.random.default_rng(0))
    weights = model.graph.initializers["w"].const_value.numpy()
    rows = inputs(layer, feeds["x"], places)
    turned = layer.node.op_type == "Conv" or "turned" in name
    filters = (weights if turned else weights.T).reshape(rows.shape[1], -1, rows.shape[2])
    given = np.einsum("pgw,gow->pgo", rows, filters).reshape(len(rows), -1)
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    given += 0 if bias is None else edit.constant(bias)
    np.testing.assert_allclose(given, places.of(results), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_weights_that_made_results_are_found_again(name: str) -> None:
    """Results with a shift, from weights that are wrong by one per cent: what is left is far less than that."""
    model, layer = one_layer(name)
    feeds = random_feeds(model)
    (wanted,) = reference(model, feeds)
    exact = model.graph.initializers["w"].const_value.numpy()
    model.graph.initializers["w"].const_value = ir.Tensor(
        exact + np.float32(0.05) * random(*exact.shape, seed=9)
    )
    before = np.abs(reference(model, feeds)[0] - wanted).max()
    bias = edit.constant(model.graph.initializers["b"]) if name == "MatMul" else np.float32(0)
    targets = Places.draw(wanted.shape, layer.axis, 10**6, np.random.default_rng(0))
    fit(layer, inputs(layer, feeds["x"], targets), targets.of(wanted - bias), edit.Names(model))
    after = np.abs(reference(model, feeds)[0] - wanted).max()
    assert after < before / 20


def test_places_are_drawn_once() -> None:
    places = Places.draw((2, 7, 3, 3), 1, 100, np.random.default_rng(0))
    assert len({*zip(*(each.tolist() for each in places.indices), strict=True)}) == 18
    assert places.of(random(2, 7, 3, 3)).shape == (18, 7)


UNFIT = {
    "grouped": ("y = Conv <group = 2> (x, w)", (4, 3, 3, 3)),
    "automatic padding": ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', (4, 6, 3, 3)),
    "computed weights": ("u = Relu(w) y = Conv(x, u)", (4, 6, 3, 3)),
    "a weight of two": ("a = Conv(x, w) b = Conv(x, w) y = Add(a, b)", (4, 6, 3, 3)),
    "a vector": ("y = MatMul(x, w)", (9,)),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_fitted_is_left(name: str) -> None:
    body, weight = UNFIT[name]
    model = make_model(f"agraph (float[2,6,9,9] x) => (float[N,C,H,W] y) {{ {body} }}", w=random(*weight))
    infer_shapes(model)
    assert layers(model.graph) == []


@pytest.mark.parametrize("form", ["transA = 1", "alpha = 0.5", "beta = 2.0"])
def test_scaled_and_turned_products_are_left(form: str) -> None:
    model = make_model(
        f"agraph (float[6,6] x) => (float[6,4] y) {{ y = Gemm <{form}> (x, w, b) }}",
        w=random(6, 4),
        b=random(4),
    )
    infer_shapes(model)
    assert layers(model.graph) == []


def test_sums_are_compared_where_something_is_added() -> None:
    text = "agraph (float[2,6,5,5] x) => (float[2,6,5,5] y) { a = Relu(x) b = Conv(a, w) c = Add(x, b) y = Relu(c) }"
    model = make_model(text, w=random(6, 6, 1, 1))
    infer_shapes(model)
    (layer,) = layers(model.graph)
    assert (layer.source, layer.target, layer.beside) == ("a", "c", "x")


@pytest.mark.parametrize(("rows", "moves"), [(FEWEST - 1, False), (40 * FEWEST, True)])
def test_few_rows_only_make_means_right(rows: int, moves: bool) -> None:
    model, layer = one_layer("Gemm")
    before = model.graph.initializers["w"].const_value.numpy().copy()
    read = random(rows, 6)
    wanted = read @ (before + random(6, 4, seed=3)) + 5
    fit(layer, read[:, None], wanted, edit.Names(model))
    weights, bias = (edit.constant(value) for value in layer.node.inputs[1:])
    assert (not np.array_equal(weights, before)) == moves
    np.testing.assert_allclose((read @ weights + bias).mean(axis=0), wanted.mean(axis=0), rtol=1e-4)
