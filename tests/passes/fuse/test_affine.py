"""Constants and batch normalisation move into weights, and stay where that would change the result."""

import numpy as np
import pytest

from tests.conftest import make_model, ops
from tests.passes.fuse.checking import fuse, reasons

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


C = {
    "w": normal(6, 4, 3, 3),
    "grouped": normal(6, 2, 3, 3),
    "b": normal(6),
    "wt": normal(4, 3, 3, 3),
    "scale": normal(6),
    "shift": normal(6),
    "mean": normal(6),
    "variance": np.abs(normal(6)) + 0.5,
    "scale4": normal(4),
    "shift4": normal(4),
    "mean4": normal(4),
    "variance4": np.abs(normal(4)) + 0.5,
    "number": np.float32(1.7),
    "channel": normal(6, 1, 1),
    "in_channel": normal(1, 4, 1, 1),
    "plane": normal(1, 1, 6, 6),
    "zero": np.float32(0),
}
IMAGE = "agraph (float[1,4,8,8] x) => (float[1,6,h,w] y)"
BN = "BatchNormalization(c, scale, shift, mean, variance)"


def image(body: str, opset: int = 18, head: str = IMAGE, **constants: np.ndarray):
    return make_model(f"{head} {{ {body} }}", opset, **{**C, **constants})


CONVS = {
    "plain": "c = Conv(x, w)",
    "bias": "c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)",
    "grouped": "c = Conv<group = 2>(x, grouped, b)",
    "dilated": "c = Conv<dilations = [2, 2]>(x, w)",
    "automatic padding": 'c = Conv<auto_pad = "SAME_UPPER">(x, w)',
}


@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize(
    "after",
    [
        "Mul(c, channel)",
        "Mul(number, c)",
        "Add(channel, c)",
        "Sub(c, channel)",
        "Sub(number, c)",
        "Div(c, channel)",
    ],
)
def test_constant_after_conv(conv: str, after: str) -> None:
    graph = image(f"{conv} y = {after}")
    assert fuse(graph, 1e-4).applied["constant after Conv"] == 1
    assert ops(graph) == {"Conv": 1}


@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("opset", [9, 18])
def test_batch_norm_after_conv(conv: str, opset: int) -> None:
    graph = image(f"{conv} y = {BN}", opset)
    assert fuse(graph, 1e-4).applied["batch norm after Conv"] == 1
    assert ops(graph) == {"Conv": 1}


@pytest.mark.parametrize(("groups", "weight"), [(1, normal(4, 6, 3, 3)), (2, C["wt"])])
def test_after_conv_transpose(groups: int, weight: np.ndarray) -> None:
    conv = f"t = ConvTranspose<group = {groups}, strides = [2, 2]>(x, wt, b) c = Mul(t, channel)"
    graph = image(f"{conv} y = {BN}", wt=weight)
    outcome = fuse(graph, 1e-4)
    assert outcome.applied["constant after ConvTranspose"] == 1
    assert outcome.applied["batch norm after ConvTranspose"] == 1
    assert ops(graph) == {"ConvTranspose": 1}


REFUSALS = {
    "per pixel": (
        "c = Conv(x, w) y = Mul(c, plane)",
        "constant after Conv",
        "the constant is not per channel",
    ),
    "division by zero": (
        "c = Conv(x, w) y = Div(c, zero)",
        "constant after Conv",
        "the result is not finite",
    ),
    "training": (
        "c = Conv(x, w) y, rm, rv = BatchNormalization<training_mode = 1>(c, scale, shift, mean, variance)",
        "batch norm after Conv",
        "it is in training mode",
    ),
    "padding": (
        "c = Add(x, number) y = Conv<pads = [1, 1, 1, 1]>(c, w)",
        "constant before Conv",
        "the padding would have to be shifted as well",
    ),
    "unknown channels": (
        "c = Mul(x, number) y = Conv(c, w)",
        "constant before Conv",
        "the channels of the input are unknown",
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(case: tuple[str, str, str]) -> None:
    body, rule, reason = case
    head = IMAGE.replace("[1,4,8,8]", "[1,C,8,8]") if "unknown" in reason else IMAGE
    feeds = 4 if "unknown" in reason else 2
    graph = image(body, head=head)
    before = ops(graph)
    if feeds == 2:
        assert reasons(fuse(graph, 1e-4), rule) == [reason]
    else:
        from graphopt.passes.fuse import Fuse
        from graphopt.rewriting.pipeline import Context

        assert reasons(Fuse().apply(graph, Context()), rule) == [reason]
    assert ops(graph) == before


def test_a_large_shared_weight_is_not_copied() -> None:
    weight = normal(64, 64, 3, 3)
    head = "agraph (float[1,64,6,6] x) => (float[1,64,h,w] y, float[1,64,h,w] z)"
    graph = image("c = Conv(x, w) y = Mul(c, number) z = Conv(x, w)", head=head, w=weight)
    expected = ["the weight is used elsewhere and too large to copy"]
    assert reasons(fuse(graph), "constant after Conv") == expected


def test_a_small_shared_weight_is_copied() -> None:
    graph = image("c = Conv(x, w) d = Mul(c, number) e = Conv(x, w) y = Add(d, e)")
    assert fuse(graph, 1e-4).applied["constant after Conv"] == 1


def test_a_convolution_that_is_an_output_keeps_its_constant() -> None:
    head = "agraph (float[1,4,8,8] x) => (float[1,6,h,w] y, float[1,6,h,w] c)"
    assert not fuse(image("c = Conv(x, w) y = Mul(c, number)", head=head)).applied


def test_a_weight_that_a_caller_may_override_stays() -> None:
    head = "agraph (float[1,4,8,8] x, float[6,4,3,3] w) => (float[1,6,h,w] y)"
    graph = image("c = Conv(x, w) y = Mul(c, number)", head=head)
    assert not fuse(graph).applied


@pytest.mark.parametrize("before", ["Mul(x, in_channel)", "Div(x, number)"])
def test_factor_before_conv(before: str) -> None:
    graph = image(f"c = {before} y = Conv<pads = [1, 1, 1, 1], group = 2>(c, grouped, b)")
    assert fuse(graph, 1e-4).applied["constant before Conv"] == 1
    assert ops(graph) == {"Conv": 1}


@pytest.mark.parametrize("before", ["Add(x, in_channel)", "Sub(number, x)"])
def test_summand_before_unpadded_conv(before: str) -> None:
    graph = image(f"c = {before} y = Conv<group = 2>(c, grouped)")
    assert fuse(graph, 1e-4).applied["constant before Conv"] == 1
    assert ops(graph) == {"Conv": 1}


def test_batch_norm_before_conv() -> None:
    graph = image("c = BatchNormalization(x, scale4, shift4, mean4, variance4) y = Conv(c, w, b)")
    assert fuse(graph, 1e-4).applied["batch norm before Conv"] == 1
    assert ops(graph) == {"Conv": 1}


ROWS = "agraph (float[3,4] x) => (float[3,6] y)"
GEMM = {"k": normal(4, 6), "kt": normal(6, 4), "rows": normal(3, 1), "row": normal(1, 6)}


@pytest.mark.parametrize(
    "gemm",
    [
        "c = Gemm(x, k)",
        "c = Gemm<alpha = 0.5, beta = 2.0>(x, k, b)",
        "c = Gemm<transB = 1>(x, kt, row)",
        "c = MatMul(x, k)",
    ],
)
@pytest.mark.parametrize("after", ["Mul(c, scale)", "Add(shift, c)", "Sub(number, c)", BN])
def test_after_matrix_product(gemm: str, after: str) -> None:
    graph = image(f"{gemm} y = {after}", head=ROWS, **GEMM)
    outcome = fuse(graph, 1e-4)
    assert outcome.applied[
        f"{'batch norm' if after is BN else 'constant'} after {gemm.split()[2].split('(')[0].split('<')[0]}"
    ]
    assert sum(ops(graph).values()) == 1


def test_a_bias_along_the_rows_stays() -> None:
    graph = image("c = Gemm(x, k, rows) y = Mul(c, scale)", head=ROWS, **GEMM)
    assert reasons(fuse(graph), "constant after Gemm") == ["the bias varies along the rows"]


def test_a_summand_after_a_batched_product_is_left_to_the_backend() -> None:
    head = "agraph (float[2,3,4] x) => (float[2,3,6] y)"
    graph = image("c = MatMul(x, k) y = Add(c, b)", head=head, **GEMM)
    assert not fuse(graph).modified
