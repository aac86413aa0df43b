"""Sparse versions of whole models: how many zeros, what they cost, what becomes of them, and requests that are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt
from graphopt.accuracy.verify import reference
from graphopt.cli import sparsifying as cli_sparsifying
from graphopt.compression.quantizing import quantize
from graphopt.compression.sparsifying import Sparsification, sparsify
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.passes.sparsify.criteria import CRITERIA
from graphopt.passes.sparsify.recipe import MOST_ROWS
from tests.compression.test_quantizing import MODELS, NAMES, data_for, normal
from tests.conftest import make_model

WIDE = [name for name in NAMES if name != "digits_depthwise"]
"""Models with weights to spare."""


def weights_of(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value
    }


def top1(done: Sparsification) -> tuple[float, float]:
    assert done.evaluation is not None
    assert done.evaluation.top1 is not None
    return done.evaluation.top1


@pytest.mark.parametrize("name", WIDE)
def test_shipped_models_lose_little_with_half_of_their_weights(name: str) -> None:
    done = sparsify(MODELS / f"{name}.onnx", data_for(name), ratio=0.5)
    assert done.zeros == sum(layer.weights // 2 for layer in done.layers)
    before, after = top1(done)
    assert before - after <= 0.02
    onnx.checker.check_model(graphopt.model.proto(done.model), full_check=True)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("request_", [{"ratio": 0.6}, {"pattern": "2:4"}, {"pattern": "16x1", "ratio": 0.3}])
def test_making_up_for_zeros_pays(criterion: str, request_: dict[str, Any]) -> None:
    name = "digits_cnn"
    plain, better = (
        sparsify(
            MODELS / f"{name}.onnx", data_for(name), criterion=criterion, compensate=each, **request_
        ).evaluation
        for each in (False, True)
    )
    assert plain is not None
    assert better is not None
    assert better.sqnr_db > plain.sqnr_db + 2


def test_one_ratio_for_all_layers() -> None:
    done = sparsify(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), ratio=0.7, across=True)
    assert done.zeros == int(0.7 * done.weights)
    shares = [layer.share for layer in done.layers]
    assert max(shares) - min(shares) > 0.1


@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
@pytest.mark.parametrize("request_", [{"ratio": 0.7}, {"pattern": "16x1", "ratio": 0.6}])
def test_compiled_it_is_what_onnx_runtime_computes(name: str, request_: dict[str, Any]) -> None:
    data = data_for(name)
    done = sparsify(MODELS / f"{name}.onnx", data, samples=50, **request_)
    feeds = next(data.batches(1))
    expected = reference(done.model)(feeds)
    with graphopt.compile(done.model) as compiled:
        actual = compiled.run(None, dict(feeds))
    for output, value in zip(expected, actual, strict=True):
        np.testing.assert_allclose(value, expected[output], rtol=1e-4, atol=1e-5)


def test_zeros_stay_zeros_as_integers() -> None:
    data = data_for("digits_cnn")
    sparse = sparsify(MODELS / "digits_cnn.onnx", data, ratio=0.7)
    done = quantize(sparse.model, data, samples=100)
    levels = [
        array for array in weights_of(done.model).values() if array.dtype == np.int8 and array.size > 64
    ]
    assert levels
    assert all((array == 0).mean() >= 0.69 for array in levels)
    assert done.evaluation is not None
    assert done.evaluation.sqnr_db > 20


def test_layers_are_excluded_by_name_and_by_operator() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,6] y) {
        [first] c = Conv(x, w) g = GlobalAveragePool(c) f = Flatten(g) [second] m = MatMul(f, v) y = Add(m, a) }"""

    def model() -> ir.Model:
        return make_model(text, w=normal(4, 3, 3, 3), v=normal(4, 6), a=normal(6))

    for exclude, left in ((["first"], {"first"}), (["MatMul"], {"second"})):
        assert set(sparsify(model(), exclude=exclude, ratio=0.5).left_out) == left
    with pytest.raises(GraphoptError, match=r"no node or operator of the model matches 'third\*'"):
        sparsify(model(), exclude=["third*"], ratio=0.5)
    with pytest.raises(GraphoptError, match="nothing in this model can have zeros: excluded"):
        sparsify(model(), exclude=["*"], ratio=0.5)


def test_a_constant_part_of_the_inputs_goes_into_the_bias() -> None:
    """Where there is a bias, or can be one; a product without one makes up for it by its weights."""
    data = Dataset({"x": normal(64, 8) + 5})
    for text in ("y = Gemm(x, w)", "m = MatMul(x, w) y = Add(m, a)", "y = MatMul(x, w)"):
        model = make_model(
            f"agraph (float[N,8] x) => (float[N,4] y) {{ {text} }}", w=normal(8, 4), a=normal(4)
        )
        done = sparsify(model, data, ratio=0.5)
        assert done.evaluation is not None
        assert done.evaluation.sqnr_db > 12


def test_weights_that_are_used_twice_see_both_inputs() -> None:
    text = "agraph (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"
    done = sparsify(make_model(text, w=normal(8, 8)), Dataset({"x": normal(64, 8)}), ratio=0.25)
    assert [layer.zeros for layer in done.layers] == [16]


def test_a_layer_with_many_inputs_is_not_made_up_for() -> None:
    text = "agraph (float[N,K] x) => (float[N,2] y) { y = MatMul(x, w) }"
    model = make_model(text, w=normal(MOST_ROWS + 1, 2))
    data = Dataset({"x": normal(32, MOST_ROWS + 1)})
    assert any("nothing makes up" in each for each in sparsify(model.clone(), data, ratio=0.5).warnings)
    with pytest.raises(GraphoptError, match="compares all pairs of inputs"):
        sparsify(model, data, ratio=0.5, criterion="correlation")


def test_what_is_odd_is_said() -> None:
    model = make_model("agraph (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(8, 4))
    assert sparsify(model.clone(), ratio=0.5, metric="cosine").warnings == [
        "cosine needs --eval or --calib DATA, and was not measured",
        "without --calib DATA nothing makes up for the weights that became zero",
    ]
    assert not sparsify(model.clone(), ratio=0.5, compensate=False).warnings
    assert "only 3 samples" in sparsify(model, Dataset({"x": normal(3, 8)}), ratio=0.5).warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"ratio": 0.5, "criterion": "wanda"}, "needs calibration data"),
        ({"ratio": 0.5, "criterion": "beauty"}, "unknown criterion"),
        ({"pattern": "2:4", "across": True}, "layers share a ratio"),
        ({"ratio": 0.5, "metric": "beauty"}, "unknown metric"),
    ],
)
def test_requests_that_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match=message):
        sparsify(MODELS / "digits_mlp.onnx", output=tmp_path / "a.onnx", **options)
    assert not (tmp_path / "a.onnx").exists()


def test_weights_that_are_no_numbers_are_refused() -> None:
    weights = normal(8, 4)
    weights[3, 2] = np.nan
    model = make_model("agraph (float[N,8] x) => (float[N,4] y) { [bad] y = MatMul(x, w) }", w=weights)
    with pytest.raises(GraphoptError, match="the weights of bad are not all finite"):
        sparsify(model, ratio=0.5)


def test_a_model_without_layers_is_refused() -> None:
    model = make_model("agraph (float[N,8] x) => (float[N,8] y) { y = Relu(x) }")
    with pytest.raises(GraphoptError, match="neither convolutions nor products"):
        sparsify(model, ratio=0.5)


def test_the_command_knows_every_criterion() -> None:
    assert tuple(CRITERIA) == cli_sparsifying.CRITERIA
