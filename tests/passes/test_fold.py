"""Constants are computed at once, unless that bloats the model or freezes something random."""

import numpy as np

from graphopt.model import normalise
from graphopt.passes.fold import LARGEST_GROWTH, LEAST_GROWTH, Fold, allowance
from graphopt.rewriting.pipeline import Context
from tests.conftest import apply_and_check, make_model, ops

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_chains_of_constants_are_folded_in_one_go() -> None:
    model = make_model(
        "agraph (float[3,2] x) => (float[3,2] y) { a = Transpose(w) b = Neg(a) y = Add(x, b) }", w=W
    )
    assert apply_and_check(Fold(), model).applied == {"fold Transpose": 1, "fold Neg": 1}
    assert ops(model) == {"Add": 1}


def test_an_output_that_is_constant_keeps_its_name() -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] z, float[3,2] y) { z = Neg(x) y = Transpose(w) }", w=W
    )
    apply_and_check(Fold(), model)
    assert ops(model) == {"Neg": 1, "Identity": 1}
    assert model.graph.outputs[1].name == "y"


def test_constants_in_subgraphs_are_folded() -> None:
    model = make_model(
        """agraph (bool c, float[3,2] x) => (float[3,2] r) {
        r = If(c) <then_branch = t () => (float[3,2] a) { m = Transpose(w) a = Add(x, m) },
                   else_branch = e () => (float[3,2] b) { b = Abs(x) }> }""",
        w=W,
    )
    apply_and_check(Fold(), model)
    assert ops(model) == {"If": 1, "Add": 1, "Abs": 1}


def test_a_default_that_callers_may_override_is_not_constant() -> None:
    model = make_model(
        "agraph (float[3,2] x, float[2,3] w) => (float[3,2] y) { a = Transpose(w) y = Add(x, a) }", w=W
    )
    assert not apply_and_check(Fold(), model).modified


def test_random_operators_are_never_folded() -> None:
    model = make_model(
        "agraph (float[2,3] x) => (float[2,3] y) { a = RandomNormalLike(w) y = Add(x, a) }", w=W
    )
    assert not Fold().apply(model, Context()).modified


def test_quantized_weights_stay_quantized() -> None:
    model = make_model(
        "agraph (float[2] x) => (float[2] y) { a = DequantizeLinear(w, s) y = Add(x, a) }",
        w=np.array([1, 2], np.int8),
        s=np.array(0.5, np.float32),
    )
    assert not apply_and_check(Fold(), model).modified


def test_results_that_would_bloat_the_model_stay() -> None:
    text = "agraph (float[1] x) => (float[1000] y) { a = Expand(w, s) b = ReduceSum(a, d) y = Add(x, a) }"
    weights = {"w": np.ones(1, np.float32), "s": np.array([1000]), "d": np.array([0])}
    refusing = make_model(text, **weights)
    outcome = apply_and_check(Fold(max_growth=3900), refusing)
    assert outcome.refused == {("fold Expand", "the result would enlarge the model"): 1}
    assert not outcome.modified
    assert apply_and_check(Fold(max_growth=4000), make_model(text, **weights)).applied["fold Expand"] == 1


def test_the_size_is_estimated_before_anything_is_computed() -> None:
    model = make_model(
        "agraph (float[1] x) => (float[1000000,1000000] y) { a = ConstantOfShape(s) y = Add(x, a) }",
        s=np.array([1_000_000, 1_000_000]),
    )
    normalise(model)
    assert (
        Fold().apply(model, Context()).refused["fold ConstantOfShape", "the result would enlarge the model"]
        == 1
    )


def test_a_weight_that_others_use_counts_as_growth() -> None:
    text = "agraph (float[3,2] x) => (float[3,2] y, float[2,3] z) {{ a = Transpose(w) y = Add(x, a) {} }}"
    shared = make_model(text.format("z = Neg(w) "), w=W)
    assert not Fold(max_growth=W.nbytes - 1).apply(shared, Context()).applied["fold Transpose"]
    private = make_model("agraph (float[3,2] x) => (float[3,2] y) { a = Transpose(w) y = Add(x, a) }", w=W)
    assert Fold(max_growth=0).apply(private, Context()).applied["fold Transpose"] == 1


def test_a_model_may_grow_by_a_share_of_its_weights() -> None:
    def sized(count: int) -> int:
        text = "agraph (float[2] x) => (float[2] y) { y = Relu(x) }"
        return allowance(make_model(text, w=np.zeros(count, np.float32)))

    assert sized(1) == LEAST_GROWTH
    assert sized(5_000_000) == 100_000
    assert sized(100_000_000) == LARGEST_GROWTH


STANDARDISED = "n, m, v = BatchNormalization<training_mode = 1>(w, s, b, m0, v0) y = Add(x, n)"
PARAMETERS = {name: np.float32([i, 2, 3]) for i, name in enumerate(("s", "b", "m0", "v0"))}


def test_standardised_weights_are_folded() -> None:
    """Exporters write weight standardisation as a BatchNormalization that trains."""
    model = make_model(f"agraph (float[2,3] x) => (float[2,3] y) {{ {STANDARDISED} }}", w=W, **PARAMETERS)
    assert apply_and_check(Fold(), model, exact=False).applied == {"fold BatchNormalization": 1}
    assert ops(model) == {"Add": 1}


def test_running_statistics_are_not_folded() -> None:
    head = "agraph (float[2,3] x) => (float[2,3] y, float[3] m)"
    model = make_model(f"{head} {{ {STANDARDISED} }}", w=W, **PARAMETERS)
    assert not Fold().apply(model, Context()).modified
