"""Constants that several nodes read."""

import numpy as np

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.separate import LARGEST, separate
from tests.conftest import make_model
from tests.passes.prune.checking import check_exact, random, ready

SHARED = """agraph (float[2,3,6,6] x) => (float[2,4,6,6] y) {
    a = Conv(x, w, c) b = Relu(a) d = Conv(b, v, c) e = Relu(d) y = Conv(e, u) }"""
WEIGHTS = {"w": random(8, 3, 1, 1), "v": random(8, 8, 1, 1), "u": random(4, 8, 1, 1), "c": random(8)}


def test_equal_biases_do_not_tie_channels() -> None:
    groups = check_exact(ready(make_model(SHARED, **WEIGHTS)))
    assert [group.name for group in groups] == ["Conv_0", "Conv_1"]


def test_copies_are_counted() -> None:
    model = make_model(SHARED, **WEIGHTS)
    assert separate(model) == 1
    assert separate(model) == 0


def test_what_is_meant_to_be_shared_is_left() -> None:
    """A large table, a number, and an output of the model."""
    text = "agraph (int64[2] i) => (float[2,N] y, float[8] c) { a = Gather(w, i) b = Gather(w, i) d = Add(a, n) e = Add(d, n) f = Add(b, e) g = Add(f, c) y = Add(g, c) }"
    table = np.zeros((LARGEST // 8 + 1, 8), np.float32)
    assert separate(make_model(text, w=table, n=np.float32(1), c=random(8))) == 0


def test_one_weight_for_two_layers_ties_their_channels() -> None:
    """Where it is too large to be copied."""
    text = """agraph (float[2,4] x) => (float[2,4] y) { a = MatMul(x, w) b = MatMul(x, w) d = Relu(a) e = MatMul(d, v)
        f = MatMul(b, u) y = Add(e, f) }"""
    size = LARGEST // 4 + 1
    model = ready(make_model(text, w=random(4, size), v=random(size, 4), u=random(size, 4)))
    (group,) = find_groups(model).groups
    assert group.nodes == ["MatMul_0", "MatMul_1", "MatMul_2", "MatMul_3"]
