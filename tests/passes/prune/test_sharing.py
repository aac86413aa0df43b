"""Neurons that are equal, or multiples, become one; what reads them gets the same. Those that differ stay."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.removal import remove
from graphopt.passes.prune.sharing import Products, by_activations, by_weights, fold, why_not
from tests.conftest import make_model, random_feeds, reference
from tests.passes.prune.checking import between, random, ready


def twins(*shape: int) -> np.ndarray:
    """Filters of which the channels 1 and 4 are equal, and 2 and 7."""
    found = random(*shape)
    found[4], found[7] = found[1], found[2]
    return found


def merged(model: ir.Model, tolerance: float = 0) -> tuple[ir.Model, dict[str, list[int]]]:
    """A copy without what can be shared by weights, and which channels went."""
    copy = model.clone()
    structure = find_groups(copy)
    groups = [group for group in structure.groups if why_not(structure, group) is None]
    shared = {group.name: by_weights(structure, group, tolerance) for group in groups}
    for group in groups:
        fold(group, shared[group.name])
    remove(structure, {name: each.kept for name, each in shared.items()})
    return copy, {name: np.flatnonzero(~each.kept).tolist() for name, each in shared.items()}


def check(model: ir.Model, tolerance: float = 0, error: float = 1e-5) -> dict[str, list[int]]:
    """Asserts that nothing changes but the size. Gives the channels that went."""
    small, gone = merged(model, tolerance)
    feeds = random_feeds(model)
    for wanted, given in zip(reference(model, feeds), reference(small, feeds), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=0, atol=error * np.abs(wanted).max(), strict=True)
    return {name: each for name, each in gone.items() if each}


BIAS = np.array([0.1, 0.2, 0.3, 0.4, 0.2, 0.5, 0.6, 0.3], np.float32)


@pytest.mark.parametrize(
    "body",
    [
        "b = Relu(a)",
        "b = Sigmoid(a)",
        "c = Add(a, shift) b = Tanh(c)",
        "c = Conv <pads = [1,1,1,1], group = 8> (a, depth) b = Relu(c)",
        "c = PRelu(a, slopes) b = GlobalAveragePool(c)",
        "c = MaxPool <kernel_shape = [2,2]> (a) b = Concat <axis = 1> (c)",
        "c = Sigmoid(a) b = Mul(a, c)",
    ],
)
def test_equal_channels_become_one(body: str) -> None:
    constants = {
        "shift": BIAS.reshape(8, 1, 1),
        "slopes": BIAS.reshape(8, 1, 1),
        "depth": twins(8, 1, 3, 3),
    }
    used = {name: each for name, each in constants.items() if name in body}
    assert check(between(body, w=twins(8, 3, 3, 3), **used)) == {"Conv_0": [4, 7]}


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("c = Add(a, shift) b = Relu(c)", {"shift": np.arange(8, dtype=np.float32).reshape(8, 1, 1)}),
        ("c = PRelu(a, slopes) b = Identity(c)", {"slopes": random(8, 1, 1)}),
        ("c = Conv <pads = [1,1,1,1], group = 8> (a, depth) b = Relu(c)", {"depth": random(8, 1, 3, 3)}),
        ("c = Conv <pads = [1,1,1,1]> (a, other) b = Add(a, c)", {"other": random(8, 8, 3, 3)}),
    ],
)
def test_equal_filters_are_not_enough(body: str, constants: dict[str, np.ndarray]) -> None:
    assert check(between(body, w=twins(8, 3, 3, 3), **constants)) == {}


def test_two_makers_have_to_agree() -> None:
    body = "c = Conv <pads = [1,1,1,1]> (x, u) b = Add(a, c)"
    both = {"w": twins(8, 3, 3, 3), "u": twins(8, 3, 3, 3)[:, ::-1].copy()}
    assert check(between(body, **both)) == {"Conv_0": [4, 7]}


def test_what_is_summed_otherwise_stays() -> None:
    """A reduction over channels would miss those that went."""
    body = "c = Relu(a) s = ReduceSum <keepdims = 1> (c, one) b = Mul(c, s)"
    assert check(between(body, w=twins(8, 3, 3, 3), one=np.array([1]))) == {}


def test_channels_of_different_groups_of_filters_stay() -> None:
    body = "c = Relu(a) b = Conv <group = 2> (c, k)"
    model = between(body, w=random(8, 3, 3, 3), k=np.repeat(random(1, 4, 1, 1), 8, axis=0))
    assert check(model) == {}


def test_nearly_equal_channels_become_one_within_the_tolerance() -> None:
    near = twins(8, 3, 3, 3)
    near[4] += 0.001 * random(3, 3, 3)
    near[7] += 0.1 * random(3, 3, 3)
    model = between("b = Relu(a)", w=near)
    assert check(model) == {}
    assert check(model, 0.01, error=0.01) == {"Conv_0": [4]}


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        ("b = Relu(a)", [4]),
        ("c = MaxPool <kernel_shape = [2,2]> (a) b = LeakyRelu(c)", [4]),
        ("b = Sigmoid(a)", []),
        ("c = Add(a, half) b = Relu(c)", []),
    ],
)
def test_positive_multiples_pass_what_passes_them_on(body: str, gone: list[int]) -> None:
    filters = random(8, 3, 3, 3)
    filters[4], filters[7] = 3 * filters[1], -2 * filters[2]
    used = {"half": np.array([0.5], np.float32)} if "half" in body else {}
    assert check(between(body, w=filters, **used)) == ({"Conv_0": gone} if gone else {})


def test_multiples_need_multiples_of_biases() -> None:
    text = "agraph (float[2,6] x) => (float[2,3] y) { a = Gemm(x, w, c) b = Relu(a) y = MatMul(b, v) }"
    weights, bias = random(6, 4), random(4)
    weights[:, 2], bias[2] = 2 * weights[:, 0], 2 * bias[0]
    weights[:, 3], bias[3] = 2 * weights[:, 1], 3 * bias[1]
    assert check(ready(make_model(text, w=weights, c=bias, v=random(4, 3)))) == {"Gemm_0": [2]}


def test_activations_tell_multiples_of_any_sign() -> None:
    rows = random(50, 5)
    rows[:, 3], rows[:, 4] = -2 * rows[:, 1], 0
    products = Products(1, np.arange(5)[:, None])
    for part in np.split(rows, 2):
        products.add(part)
    found = by_activations([products], 0.01)
    assert found.leaders.tolist() == [0, 1, 2, 1, 4]
    assert found.factors[0][3] == pytest.approx(-2)


def test_all_readers_have_to_agree() -> None:
    one, other = (Products(1, np.arange(3)[:, None]) for _ in range(2))
    rows = random(50, 3)
    other.add(rows)
    one.add(np.stack([rows[:, 0], rows[:, 0], rows[:, 2]], axis=1))
    assert by_activations([one, other], 0.01).kept.all()
    assert not by_activations([one], 0.01).kept.all()
