"""Channels through matrix products."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from tests.conftest import make_model
from tests.passes.prune.checking import check_exact, random, ready


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("bias", [(8,), (1, 8), (1,), (3, 1), None], ids=str)
def test_gemm_of_rows(right: int, bias: tuple[int, ...] | None) -> None:
    """Y = A B' + C: weights on the right make columns and read them."""
    addend, shape = ("", ()) if bias is None else (", c", bias)
    text = f"""agraph (float[3,5] x) => (float[3,4] y) {{
        a = Gemm <transB = {right}, alpha = 0.5, beta = 2.0> (x, w{addend}) b = Relu(a) y = Gemm <transB = {right}> (b, v) }}"""
    turn = (lambda array: array.T.copy()) if right else (lambda array: array)
    model = ready(make_model(text, w=turn(random(5, 8)), v=turn(random(8, 4)), c=random(*shape)))
    (group,) = check_exact(model)
    assert (group.size, group.nodes) == (8, ["Gemm_0", "Gemm_1"])


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("flipped", [0, 1])
def test_gemm_of_columns(left: int, flipped: int) -> None:
    """Y = A' B': weights on the left make rows and read them."""
    size = "3,5" if flipped else "5,3"
    text = f"""agraph (float[{size}] x) => (float[4,3] y) {{
        a = Gemm <transA = {left}, transB = {flipped}> (w, x) b = Relu(a) y = Gemm <transA = {left}> (v, b) }}"""
    turn = (lambda array: array.T.copy()) if left else (lambda array: array)
    model = ready(make_model(text, w=turn(random(8, 5)), v=turn(random(4, 8))))
    (group,) = check_exact(model)
    assert (group.size, group.nodes) == (8, ["Gemm_0", "Gemm_1"])


def test_gemm_that_sums_over_rows() -> None:
    text = "agraph (float[3,5] x) => (float[8,8] y) { a = Gemm(x, w) b = Gemm(x, u) y = Gemm <transA = 1> (a, b) }"
    found = find_groups(ready(make_model(text, w=random(5, 8), u=random(5, 8))))
    assert not found.groups


MATMULS = {
    "right": ("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", {"w": (5, 8), "v": (8, 4)}),
    "with a bias": (
        "m = MatMul(x, w) a = Add(c, m) b = Relu(a) y = MatMul(b, v)",
        {"w": (5, 8), "v": (8, 4), "c": (8,)},
    ),
    "a batch of weights": ("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", {"w": (2, 5, 8), "v": (2, 8, 4)}),
    "weights for all": ("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", {"w": (1, 5, 8), "v": (8, 4)}),
    "left": (
        "t = Transpose <perm = [0,2,1]> (x) a = MatMul(w, t) b = Relu(a) y = MatMul(v, b)",
        {"w": (8, 5), "v": (4, 8)},
    ),
}


@pytest.mark.parametrize("name", MATMULS)
def test_matmul(name: str) -> None:
    body, shapes = MATMULS[name]
    text = f"agraph (float[2,3,5] x) => (float[2,M,N] y) {{ {body} }}"
    constants = {key: random(*shape) for key, shape in shapes.items()}
    (group,) = check_exact(ready(make_model(text, **constants)))
    assert (group.size, group.nodes) == (8, ["MatMul_0", "MatMul_1"])


def test_what_two_products_sum_over_goes_together() -> None:
    """Queries and keys of one head."""
    text = """agraph (float[2,3,5] x) => (float[2,3,3] y) {
        q = MatMul(x, w) k = MatMul(x, u) t = Transpose <perm = [0,2,1]> (k) y = MatMul(q, t) }"""
    (group,) = check_exact(ready(make_model(text, w=random(5, 8), u=random(5, 8, seed=1))))
    assert (group.size, [place.node.name for place in group.makers]) == (8, ["MatMul_0", "MatMul_1"])


def test_products_with_an_input_keep_channels() -> None:
    text = "agraph (float[3,5] x, float[8,4] z) => (float[3,4] y) { a = MatMul(x, w) y = MatMul(a, z) }"
    found = find_groups(ready(make_model(text, w=random(5, 8))))
    assert [each.reason for each in found.whole] == ["MatMul 'MatMul_1' multiplies it with what stays"]


def test_vectors_are_not_followed() -> None:
    text = "agraph (float[3,5] x) => (float[3] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    found = find_groups(ready(make_model(text, w=random(5, 8), v=random(8))))
    assert [each.reason for each in found.whole] == ["MatMul 'MatMul_1' multiplies vectors"]


def test_a_weight_that_is_read_twice_is_one() -> None:
    """Embeddings that make tokens and logits."""
    text = """agraph (int64[2,3] x) => (float[2,3,9] y) {
        a = Gather(w, x) b = Relu(a) t = Transpose <perm = [1,0]> (w) y = MatMul(b, t) }"""
    model = ready(make_model(text, w=random(9, 8)))
    assert np.shape(find_groups(model).groups) == (0,)
