"""Channels through Reshape and its like: axes that are split, joined and moved."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.rules.reshaping import parts
from tests.conftest import make_model
from tests.passes.prune.checking import between, check_exact, ints, random, ready

IMAGES = {
    "Expand": ("b = Expand(a, t)", {"t": ints(2, 1, 6, 6)}, [8]),
    "Expand of which a part is told": ("b = Expand(a, t)", {"t": ints(6, 6)}, [8]),
    "Expand to more axes": (
        "d = Expand(a, t) b = Squeeze(d, o)",
        {"t": ints(1, 2, 8, 6, 6), "o": ints(0)},
        [8],
    ),
    "Expand of a constant": (
        "d = Expand(u, t) b = Add(a, d)",
        {"u": random(8, 1, 1), "t": ints(2, 8, 6, 6)},
        [8],
    ),
    "Expand to a size that is computed": (
        "d = Shape <start = 2> (x) e = Concat <axis = 0> (n, d) f = Expand(u, e) b = Add(a, f)",
        {"u": random(8, 1, 1), "n": ints(2, 8)},
        [8],
    ),
    "Squeeze and Unsqueeze": (
        "d = Unsqueeze(a, o) e = Relu(d) f = Squeeze(e, p) b = Neg(f)",
        {"o": ints(1), "p": ints(-4)},
        [8],
    ),
    "Squeeze of all": (
        "d = GlobalMaxPool(a) e = Squeeze(d) f = Unsqueeze(e, o) b = Neg(f)",
        {"o": ints(2, 3)},
        [8],
    ),
    "Transpose": ("d = Transpose(a) b = Transpose <perm = [3,2,1,0]> (d)", {}, [8]),
    "Reshape of the image": (
        "d = Reshape(a, t) b = Reshape(d, u)",
        {"t": ints(0, 0, -1), "u": ints(2, 8, 4, 9)},
        [8],
    ),
    "Reshape to a size that stays the only one": (
        "d = Reshape(a, t) b = Reshape(d, u)",
        {"t": ints(2, -1, 36), "u": ints(2, -1, 6, 6)},
        [8],
    ),
    "Reshape into groups": (
        "d = Reshape(a, t) e = ReduceMax <keepdims = 0> (d, o) b = Relu(e)",
        {"t": ints(2, 4, 2, 6, 6), "o": ints(2), "v": random(4, 4, 1, 1)},
        [4],
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_channels_of_images(name: str) -> None:
    body, constants, sizes = IMAGES[name]
    assert [group.size for group in check_exact(between(body, **constants))] == sizes


@pytest.mark.parametrize("middle", ["b = Flatten(a)", "b = Reshape(a, t)", "b = Reshape(a, u)"])
@pytest.mark.parametrize("batch", ["2", "N"])
def test_an_image_becomes_a_row(middle: str, batch: str) -> None:
    text = f"agraph (float[{batch},3,6,6] x) => (float[{batch},4] y) {{ a = Conv(x, w) {middle} y = Gemm(b, v) }}"
    constants = {"w": random(8, 3, 1, 1), "v": random(288, 4), "t": ints(-1, 288), "u": ints(0, -1)}
    (group,) = check_exact(ready(make_model(text, **constants)))
    assert group.size == 8
    assert np.bincount(group.readers[0].weight.units).tolist() == [36] * 8


HEADS = """
    q0 = MatMul(x, wq) q1 = Add(q0, bq) q2 = Reshape(q1, h) q = Transpose <perm = [0,2,1,3]> (q2)
    k0 = MatMul(x, wk) k2 = Reshape(k0, h) k = Transpose <perm = [0,2,3,1]> (k2)
    v0 = MatMul(x, wv) v2 = Reshape(v0, h) v = Transpose <perm = [0,2,1,3]> (v2)
    s0 = MatMul(q, k) s1 = Mul(s0, c) s = Softmax <axis = -1> (s1) o0 = MatMul(s, v)
    o1 = Transpose <perm = [0,2,1,3]> (o0) o = Reshape(o1, j) y = MatMul(o, wo) }"""
COMPUTED = "n = Shape <start = 0, end = 2> (x) h = Concat <axis = 0> (n, hd) j = Concat <axis = 0> (n, jd)"
TARGETS = {
    "copied": ("", {"h": ints(0, 0, 3, 4), "j": ints(0, 0, 12)}),
    "the rest": ("", {"h": ints(0, 0, -1, 4), "j": ints(0, 0, -1)}),
    "computed": (COMPUTED, {"hd": ints(3, 4), "jd": ints(12)}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_heads_of_free_batch_and_length(name: str) -> None:
    body, sizes = TARGETS[name]
    weights = {key: random(6, 12, seed=number) for number, key in enumerate(("wq", "wk", "wv"))}
    model = make_model(
        "agraph (float[B,S,6] x) => (float[B,S,6] y) { " + body + HEADS,
        **weights, **sizes, wo=random(12, 6), bq=random(12), c=np.float32(0.5),
    )  # fmt: skip
    (group,) = check_exact(ready(model))
    assert (group.size, group.nodes) == (3, ["MatMul_0", "MatMul_1", "MatMul_2", "MatMul_5"])


PACKED = """agraph (float[B,S,6] x) => (float[B,S,6] y) {
    p = MatMul(x, w) r = Reshape(p, h) t = Transpose <perm = [2,0,3,1,4]> (r)
    q = Gather <axis = 0> (t, i) k0 = Gather <axis = 0> (t, j) v = Gather <axis = 0> (t, l)
    k = Transpose <perm = [0,1,3,2]> (k0) s0 = MatMul(q, k) s = Softmax <axis = -1> (s0) o0 = MatMul(s, v)
    o1 = Transpose <perm = [0,2,1,3]> (o0) o = Reshape(o1, n) y = MatMul(o, u) }"""


def test_heads_of_one_product() -> None:
    indices = {name: np.int64(number) for number, name in enumerate("ijl")}
    sizes = {"h": ints(0, 0, 3, 3, 4), "n": ints(0, 0, -1)}
    (group,) = check_exact(ready(make_model(PACKED, w=random(6, 36), u=random(12, 6), **sizes, **indices)))
    assert group.size == 3
    assert np.bincount(group.makers[0].weight.units).tolist() == [12, 12, 12]


STAY = {
    "Reshape 'Reshape_0' mixes it with an axis of free size": (
        "agraph (float[3,S,T] x) => (float[M,4] y) { a = MatMul(w, x) b = Reshape(a, t) y = Gemm(b, v) }",
        {"w": random(8, 2), "t": ints(-1, 24), "v": random(24, 4)},
    ),
    "Expand 'Expand_0' computes its shape": (
        "agraph (float[2,5] x, int64[1] t) => (float[N,8] y) { a = MatMul(x, w) b = Expand(a, t) y = Relu(b) }",
        {"w": random(5, 8)},
    ),
    **{
        reason: (
            f"agraph (float[N,5] x, int64[n] t) => (float y) {{ a = MatMul(x, w) b = {body} y = Relu(b) }}",
            {"w": random(5, 8)},
        )
        for reason, body in {
            "Unsqueeze 'Unsqueeze_0' computes its axes": "Unsqueeze(a, t)",
            "it is not known which axes Squeeze 'Squeeze_0' removes": "Squeeze(a)",
            "the shapes of Reshape 'Reshape_0' are not known": "Reshape(a, t)",
            "the shapes of Expand 'Expand_0' are not known": "Expand(a, t)",
        }.items()
    },
}


MIXED = {
    "the other way round": "b = Reshape(a, r) c = Reshape(b, s)",
    "in front": "t = Transpose <perm = [0,2,1]> (a) b = Reshape(t, r) c = Reshape(b, s)",
    "Slice": "b = Reshape(a, r) d = Slice(b, e, f, g) c = Unsqueeze(d, h)",
    "Gather": "b = Reshape(a, r) d = Gather <axis = 1> (b, f) c = Unsqueeze(d, h)",
    "Tile": "b = Reshape(a, r) d = Tile(b, i) c = Reshape(d, s)",
    "Pad": "b = Reshape(a, r) d = Pad(b, j) c = Reshape(d, s)",
}


@pytest.mark.parametrize("name", MIXED)
def test_what_is_joined_with_an_axis_of_free_size_keeps_its_place(name: str) -> None:
    text = f"agraph (float[2,3,S] x) => (float[N,M,K] y) {{ a = Conv(x, w) {MIXED[name]} y = Relu(c) }}"
    sizes = {"r": ints(0, -1), "s": ints(0, -1, 8), "i": ints(1, 2), "j": ints(0, 8, 0, 8)}
    places = {"e": ints(0), "f": ints(8), "g": ints(1), "h": ints(1)}
    found = find_groups(ready(make_model(text, w=random(8, 3, 1), **sizes, **places)))
    assert not found.groups


@pytest.mark.parametrize("reason", STAY)
def test_channels_stay(reason: str) -> None:
    text, constants = STAY[reason]
    found = find_groups(ready(make_model(text, **constants)))
    assert not found.groups
    assert found.whole[0].reason == reason


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["B", "S", 12], ["B", "S", 3, 4], [([0], [0]), ([1], [1]), ([2], [2, 3])]),
        (["B", 3, "S", 4], ["B", 12, "S"], [([0], [0]), ([1, 2, 3], [1, 2])]),
        ([2, 3, 4, 5], [6, 20], [([0, 1], [0]), ([2, 3], [1])]),
        ([8, 1, 1], [8], [([0], [0]), ([1, 2], [])]),
        ([None, 6], [None, 2, 3], [([0], [0]), ([1], [1, 2])]),
        ([4, None, 6], [2, None, 3], [([0, 1, 2], [0, 1, 2])]),
    ],
)
def test_parts(before: list, after: list, expected: list) -> None:
    assert [(list(a), list(b)) for a, b in parts(before, after)] == expected
