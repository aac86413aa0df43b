"""Chains that change the rank merge whatever the sizes are."""

import numpy as np
import pytest

from graphopt.passes.cleanup import Cleanup
from tests.conftest import apply_and_check, make_model, ops


@pytest.mark.parametrize(
    ("inner", "outer", "dims"),
    [([2], [1], "N,1,T,1"), ([0], [0], "1,1,N,T"), ([1, 2], [0, 3], "1,N,1,1,1,T"), ([0], [3], "1,N,T,1")],
)
@pytest.mark.parametrize("opset", [11, 17])
def test_two_unsqueezes_are_one(inner: list[int], outer: list[int], dims: str, opset: int) -> None:
    body = "a = Unsqueeze(x, inner) y = Unsqueeze(a, outer)"
    if opset < 13:
        body = f"a = Unsqueeze<axes = {inner}>(x) y = Unsqueeze<axes = {outer}>(a)"
    text = f"agraph (float[N,T] x) => (float[{dims}] y) {{ {body} }}"
    graph = make_model(text, opset, inner=np.array(inner), outer=np.array(outer))
    assert apply_and_check(Cleanup(), graph, free=3).applied["unsqueeze chain"] == 1
    assert ops(graph) == {"Unsqueeze": 1}


def test_axes_from_the_end_are_refused() -> None:
    text = "agraph (float[N,T] x) => (float[N,1,T,1] y) { a = Unsqueeze(x, axes) y = Unsqueeze(a, first) }"
    graph = make_model(text, axes=np.array([-1]), first=np.array([1]))
    outcome = apply_and_check(Cleanup(), graph)
    assert outcome.refused["unsqueeze chain", "the axes are not constant, or counted from the end"] == 1


@pytest.mark.parametrize(("target", "merged"), [([2, -1, 3], True), ([0, -1, 3], False)])
def test_a_reshape_of_a_reshape_reads_the_source(target: list[int], merged: bool) -> None:
    text = "agraph (float[N,T,3] x) => (float[A,B,3] y) { a = Reshape(x, flat) y = Reshape(a, target) }"
    graph = make_model(text, flat=np.array([2, -1]), target=np.array(target))
    assert apply_and_check(Cleanup(), graph).applied["reshape of a reshape"] == merged
    assert ops(graph)["Reshape"] == (1 if merged else 2)


@pytest.mark.parametrize(
    ("body", "dims", "merged"),
    [
        ("a = ReduceMax<axes = [-1], keepdims = 0>(x) y = Unsqueeze(a, last)", "N,T,1", True),
        ("a = ReduceMax<axes = [2], keepdims = 0>(x) y = Unsqueeze(a, last)", "N,T,1", True),
        ("a = ReduceMax<axes = [1], keepdims = 0>(x) y = Unsqueeze(a, last)", "N,4,1", False),
        ("a = ReduceMax<axes = [1]>(x) y = Squeeze(a, first)", "N,4", True),
        ("a = ReduceMax<axes = [0, 1]>(x) y = Squeeze(a, first)", "1,4", False),
    ],
)
def test_a_reduction_keeps_or_drops_its_axes_itself(body: str, dims: str, merged: bool) -> None:
    graph = make_model(
        f"agraph (float[N,T,4] x) => (float[{dims}] y) {{ {body} }}",
        17,
        last=np.array([-1]),
        first=np.array([1]),
    )
    apply_and_check(Cleanup(), graph)
    assert (ops(graph) == {"ReduceMax": 1}) == merged
