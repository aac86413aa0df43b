"""Quantising whole models: how near the integers stay, what other runtimes make of them, and bad data."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sklearn.datasets import load_digits

import graphopt
from graphopt.accuracy.evaluation import Judge, quality
from graphopt.accuracy.verify import reference
from graphopt.cli import quantizing as cli_quantizing
from graphopt.compiling.building import read
from graphopt.compression.quantizer import FLOAT, SCHEMES, TECHNIQUES, Recipe
from graphopt.compression.quantizing import quantize
from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.passes.quantize.ranges import METHODS
from tests.conftest import make_model, ops

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("digits_cnn", "digits_depthwise", "digits_mlp", "digits_transformer")


def data_for(name: str) -> Dataset:
    """The digits as a shipped model takes them."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    tokens = images.reshape(len(images), -1).astype(np.int64)
    forms = {"image": images, "input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    inputs = [value.name or "" for value in read(MODELS / f"{name}.onnx").graph.inputs]
    return Dataset({each: forms[each] for each in inputs}, digits.target.astype(np.int64))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_lose_next_to_nothing(name: str) -> None:
    data = data_for(name)
    done = quantize(MODELS / f"{name}.onnx", data, samples=200, evaluate_on=data)
    assert len(done.quantized) > 1
    assert done.evaluation is not None
    assert done.evaluation.top1 is not None
    assert done.evaluation.interval is not None
    before, after = done.evaluation.top1
    assert before - after <= 0.005 + done.evaluation.interval
    assert done.evaluation.sqnr_db > 20
    onnx.checker.check_model(graphopt.model.proto(done.model), full_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_they_are_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    """Verified operator by operator; the outputs agree as far as two runtimes that round ties differently do."""
    data = data_for(name)
    done = quantize(MODELS / f"{name}.onnx", data, samples=100)
    feeds = next(data.batches(1))
    expected = reference(done.model)(feeds)
    with graphopt.compile(done.model) as compiled:
        actual = compiled.run(None, dict(feeds))
    for name_, value in zip(expected, actual, strict=True):
        assert np.abs(value - expected[name_]).max() <= 0.1 * np.abs(expected[name_]).max()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"mse"}))
def test_every_method(method: str) -> None:
    done = quantize(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), method=method, samples=200)
    assert done.evaluation is not None
    assert done.evaluation.agreement is not None
    assert done.evaluation.agreement > 0.95


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weights", "int4-weights"])
@pytest.mark.parametrize("name", NAMES)
def test_other_schemes_need_no_data(name: str, scheme: str) -> None:
    data = data_for(name)
    done = quantize(MODELS / f"{name}.onnx", scheme=scheme, evaluate_on=data)
    assert done.after.bytes < done.before.bytes
    assert done.evaluation is not None
    assert done.evaluation.agreement is not None
    assert done.evaluation.agreement > (0.9 if scheme == "int4-weights" else 0.99)
    feeds = next(data.batches(1))
    [expected] = reference(done.model)(feeds).values()
    with graphopt.compile(done.model) as compiled:
        [actual] = compiled.run(None, dict(feeds))
    assert np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()


def test_layers_have_schemes_of_their_own() -> None:
    name = "digits_transformer"
    plain = quantize(
        MODELS / f"{name}.onnx", data_for(name), scheme="int4-weights", techniques=("reconstruct",)
    )
    mixed = quantize(
        MODELS / f"{name}.onnx",
        data_for(name),
        scheme="int4-weights",
        layers=(("Gemm", "float"), (plain.quantized[0], "int8"), (plain.quantized[1], "int8-dynamic")),
        techniques=(),
    )
    assert ops(mixed.model)["QuantizeLinear"] == 1
    assert ops(mixed.model)["MatMulInteger"] == 1
    assert not mixed.gains
    assert [gain.technique for gain in plain.gains] == ["reconstruct"]


def test_techniques_that_lose_are_left_out() -> None:
    done = quantize(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), techniques=("equalise", "correct"))
    assert [gain.technique for gain in done.gains] == ["equalise", "correct"]
    for before, after in zip(done.gains, done.gains[1:], strict=False):
        assert after.before == (before.after if before.kept else before.before)


@pytest.mark.parametrize("scheme", ["int8", "int4-weights"])
def test_rounding_can_be_learned(scheme: str) -> None:
    pytest.importorskip("torch")
    data = data_for("digits_mlp")
    options = {"scheme": scheme, "samples": 100}
    done = quantize(MODELS / "digits_mlp.onnx", data, techniques=("smooth", "correct", "learn"), **options)  # type: ignore[arg-type]
    assert done.gains[-1].technique == "learn"
    assert done.gains[-1].kept
    assert done.gains[-1].after > done.gains[-1].before


def test_as_many_layers_stay_float_as_it_takes() -> None:
    data = data_for("digits_depthwise")
    options = {"samples": 100, "evaluate_on": data, "metric": "cosine"}
    plain = quantize(MODELS / "digits_depthwise.onnx", data, **options)  # type: ignore[arg-type]
    assert plain.evaluation is not None
    within = quantize(MODELS / "digits_depthwise.onnx", data, max_drop=plain.evaluation.drop / 2, **options)  # type: ignore[arg-type]
    assert within.evaluation is not None
    assert within.search is not None
    assert 0 < len(within.search.floats) < len(plain.quantized)
    assert within.evaluation.drop <= plain.evaluation.drop / 2
    assert set(within.search.floats) <= set(within.left_out)


def layers(text: str, **weights: np.ndarray) -> ir.Model:
    return make_model(text, 18, **{name: array.astype(np.float32) for name, array in weights.items()})


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_a_layer_keeps_its_name_and_its_operator_when_it_is_fused() -> None:
    text = """agraph (float[N,3,8,8] x) => (float[N,6] y) {
        [first] c = Conv(x, w) b = BatchNormalization(c, s, z, z, s) g = GlobalAveragePool(b) f = Flatten(g)
        [second] m = MatMul(f, v) y = Add(m, a) }"""
    model = layers(text, w=normal(4, 3, 3, 3), s=np.ones(4), z=np.zeros(4), v=normal(4, 6), a=normal(6))
    data = Dataset({"x": normal(20, 3, 8, 8)})
    for exclude, left in ((["first"], {"first"}), (["MatMul"], {"second"}), (["*"], {"first", "second"})):
        assert set(quantize(model, data, exclude=exclude).left_out) == left
    with pytest.raises(GraphoptError, match=r"no node or operator of the model matches 'third\*'"):
        quantize(model, data, exclude=["third*"])


@pytest.mark.parametrize("scheme", ["int8", "int4-weights"])
def test_products_in_odd_forms(scheme: str) -> None:
    """Transposed and scaled operands, a vector, a stack of matrices, and a value that a convolution reads as well."""
    text = """agraph (float[N,6,16] x) => (float[N,6,4] a, float[N,6] b, float[N,6,6] c, float[C,D] d, float[N,6,4] e) {
        r = Conv(x, k) a = MatMul(r, m) b = MatMul(x, v) c = MatMul(x, stack)
        f = Flatten<axis = 2>(x) d = Gemm<transA = 1, alpha = 0.05>(f, tall, bias) e = MatMul(x, m) }"""
    model = layers(
        text,
        k=normal(6, 6, 1),
        m=normal(16, 4),
        v=normal(16),
        stack=normal(1, 16, 6),
        tall=normal(24 * 6, 5),
        bias=normal(5),
    )
    model.graph.inputs[0].shape = ir.Shape([24, 6, 16])
    done = quantize(model, Dataset({"x": normal(48, 6, 16)}), scheme=scheme, max_drop=50.0, metric="cosine")
    assert "its weights are no matrix" in done.left_out.values()
    assert done.evaluation is not None
    assert done.evaluation.sqnr_db > 10


def test_a_large_fixed_batch() -> None:
    model = layers("agraph (float[128,8] x) => (float[128,4] y) { y = MatMul(x, w) }", w=normal(8, 4))
    done = quantize(model, Dataset({"x": normal(300, 8)}))
    assert done.evaluation is not None
    assert done.evaluation.samples == 256


def test_every_output_counts() -> None:
    text = "agraph (float[N,8] x) => (float[N,8] r, float[N,4] y) { r = Relu(x) y = MatMul(r, w) }"
    done = quantize(layers(text, w=normal(8, 4)), Dataset({"x": normal(32, 8)}))
    assert done.evaluation is not None
    assert np.isfinite(done.evaluation.sqnr_db)


def test_a_budget_that_cannot_be_kept_is_an_error() -> None:
    """A table is quantised too, and may stay float."""
    text = "agraph (int64[N,4] i) => (float[N,4,3] y) { e = Gather(t, i) y = MatMul(e, w) }"
    model = layers(text, t=normal(4096, 16), w=normal(16, 3))
    data = Dataset({"i": np.random.default_rng(3).integers(0, 4096, (32, 4))})
    done = quantize(model, data, max_drop=0.0, metric="cosine")
    assert done.evaluation is not None
    assert done.evaluation.drop <= 0
    with pytest.raises(DataError, match="try cosine"):
        quantize(
            layers("agraph (float[N,8] x) => (float[N,1] y) { y = MatMul(x, w) }", w=normal(8, 1)),
            Dataset({"x": normal(32, 8)}),
            max_drop=0.5,
        )


def test_options_without_effect_are_remarked_upon() -> None:
    options = {"scheme": "int4-weights", "metric": "cosine", "techniques": ("equalise", "learn")}
    done = quantize(MODELS / "digits_mlp.onnx", **options)  # type: ignore[arg-type]
    assert len(done.warnings) == 3


def test_feeds_may_come_from_anywhere() -> None:
    data = data_for("digits_cnn")
    feeds = (dict(batch) for batch in data.batches(10))
    done = quantize(MODELS / "digits_cnn.onnx", feeds, samples=50)
    assert done.evaluation is not None
    assert done.evaluation.samples == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs calibration data"),
        ({"scheme": "int3"}, "unknown scheme"),
        ({"techniques": ("magic",), "scheme": "int8-weights"}, "unknown technique"),
        ({"layers": (("*", "int5"),)}, "unknown scheme"),
        ({"scheme": "int4-weights", "block": 0}, "block of 0"),
        ({"scheme": "int8-weights", "max_drop": 1.0}, "needs --calib"),
        ({"scheme": "int8-weights", "metric": "guess"}, "unknown metric"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        quantize(MODELS / "digits_mlp.onnx", **options)  # type: ignore[arg-type]


def test_weights_are_bytes() -> None:
    done = quantize(MODELS / "digits_mlp.onnx", data_for("digits_mlp"))
    assert done.after.bytes < 0.4 * done.before.bytes
    assert not done.warnings


def test_excluded_nodes_stay_float() -> None:
    done = quantize(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), exclude=["Conv"])
    assert "excluded" in done.left_out.values()
    assert ops(done.model)["Conv"] == len(done.left_out)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.zeros((0, 1, 8, 8), np.float32), "0 sample"),
        (np.full((40, 1, 8, 8), np.nan, np.float32), "NaN"),
        (np.zeros((40, 1, 9, 9), np.float32), "does not fit"),
    ],
    ids=["empty", "NaN", "wrong shape"],
)
def test_bad_data_is_refused(column: np.ndarray, message: str) -> None:
    name = next(iter(data_for("digits_cnn").columns))
    with pytest.raises(DataError, match=message):
        quantize(MODELS / "digits_cnn.onnx", Dataset({name: column}))


def test_odd_data_is_remarked_upon() -> None:
    name = next(iter(data_for("digits_cnn").columns))
    done = quantize(MODELS / "digits_cnn.onnx", Dataset({name: np.zeros((8, 1, 8, 8), np.float32)}))
    assert any("only 8 samples" in warning for warning in done.warnings)
    assert any("never changed" in warning for warning in done.warnings)


def test_a_model_without_products() -> None:
    model = make_model("agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", 18)
    done = quantize(model, Dataset({"x": np.ones((20, 4), np.float32)}))
    assert not done.quantized
    assert any("nothing" in warning for warning in done.warnings)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(GraphoptError, match="percentile"):
        quantize(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), method="guess")


@pytest.mark.parametrize(
    ("body", "output"),
    [("y = ReduceSum<keepdims = 0>(x)", "float y"), ("y = NonZero(x)", "int64[2,K] y")],
    ids=["scalar", "another size each time"],
)
def test_outputs_that_are_no_samples_cannot_be_judged(body: str, output: str) -> None:
    model = make_model(f"agraph (float[N,4] x) => ({output}) {{ {body} }}", 18)
    with pytest.raises(DataError, match="output 'y' has no samples"):
        Judge(model, Dataset({"x": np.maximum(normal(32, 4), 0)}))


def test_what_cannot_be_compared_is_told() -> None:
    narrow = make_model("agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", 18)
    wide = make_model("agraph (float[N,5] x) => (float[N,5] y) { y = Relu(x) }", 18)
    with pytest.raises(DataError, match="does not run the changed model"):
        Judge(narrow, Dataset({"x": normal(32, 4)})).judge(wide)
    with pytest.raises(DataError, match="does not fit the model"):
        Judge(wide, Dataset({"x": normal(32, 4)}))
    with pytest.raises(DataError, match=r"shape \(2, 4\) instead of \(2, 5\)"):
        quality({"y": normal(2, 5)}, {"y": normal(2, 4)})


def test_commands_offer_what_there_is() -> None:
    text = (MODELS.parent / "docs/quantisation.md").read_text()
    assert (*cli_quantizing.SCHEMES, FLOAT) == SCHEMES
    assert tuple(cli_quantizing.DEFAULT_TECHNIQUES.split(",")) == Recipe().techniques
    assert all(f"`{name}`" in text for name in (*SCHEMES, *TECHNIQUES, *METHODS))


def test_evaluation_counts_pairs() -> None:
    text = "agraph (float[N,3] x) => (float[N,3] y) {{ y = Mul(x, s) }}"
    same = make_model(text.format(), 18, s=np.float32(2))
    turned = make_model(text.format(), 18, s=np.array([1, 1, -1], np.float32))
    x = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]] + 0.1
    data = Dataset({"x": x}, np.array([0, 1, 2, 1]))
    judge = Judge(same, data)
    equal = judge.judge(same)
    assert equal.sqnr_db == float("inf")
    assert (equal.agreement, equal.top1, equal.interval) == (1.0, (0.75, 0.75), 0.0)
    other = judge.judge(turned)
    assert other.agreement == 0.5
    assert other.top1 == (0.75, 0.5)
    assert other.interval == pytest.approx(1.96 * np.sqrt(1 - 1 / 4) / 4)
