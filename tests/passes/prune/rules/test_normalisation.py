"""Channels through normalisations, reductions and Softmax."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from tests.conftest import make_model, random_feeds, reference
from tests.passes.prune.checking import between, check_exact, choice, ints, pruned, random, ready

S, B = {"s": np.abs(random(8)) + 0.5}, {"c": random(8)}
VECTORS = {**S, **B, "m": random(8, seed=1), "n": np.abs(random(8, seed=2)) + 0.5}


CASES = {
    "BatchNormalization": ("b = BatchNormalization(a, s, c, m, n)", VECTORS, [8]),
    "InstanceNormalization": ("b = InstanceNormalization(a, s, c)", VECTORS, [8]),
    "InstanceNormalization as of groups": (
        "d = Reshape(a, t) e = InstanceNormalization(d, p, q) f = Reshape(e, u) b = Mul(f, r)",
        {
            "t": ints(0, 4, -1),
            "u": ints(2, 8, 6, 6),
            "p": random(4),
            "q": random(4, seed=1),
            "r": random(8, 1, 1),
        },
        [4],
    ),
    "ReduceSum of channels": ("d = ReduceSum(a, i) b = Mul(a, d)", {"i": ints(1)}, [8]),
    "ReduceL1 of channels": ("d = ReduceL1(a, i) b = Mul(a, d)", {"i": ints(1)}, [8]),
    "ReduceL2 of channels": ("d = ReduceL2(a, i) b = Div(a, d)", {"i": ints(1)}, [8]),
    "ReduceSumSquare of channels": ("d = ReduceSumSquare(a, i) b = Mul(a, d)", {"i": ints(1)}, [8]),
    "ReduceSum without the axis": (
        "d = ReduceSum <keepdims = 0> (a, i) e = Unsqueeze(d, i) b = Mul(a, e)",
        {"i": ints(1)},
        [8],
    ),
    **{
        f"{name} of the image": (f"d = {name}(a, i) b = Mul(a, d)", {"i": ints(2, -1)}, [8])
        for name in (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceLogSumExp",
            "ReduceSum",
            "ReduceL2",
        )
    },
    **{
        f"{name} of the image": (f"b = {name} <axis = 2> (a)", {}, [8])
        for name in ("Softmax", "LogSoftmax", "Hardmax")
    },
    "a sum of nothing": ("b = ReduceSum <noop_with_empty_axes = 1> (a)", {}, [8]),
    "a mean without axes": (
        "d = ReduceMean <keepdims = 0> (a, i) e = Unsqueeze(d, i) b = Mul(a, e)",
        {"i": ints(2, 3)},
        [8],
    ),
    "Shape of the image": (
        "d = Shape <start = 2> (a) e = Expand(o, d) b = Mul(a, e)",
        {"o": np.float32(2)},
        [8],
    ),
    "Shape of which a part is read": (
        "d = Shape(a) g = Gather(d, k) e = Expand(o, g) b = Mul(a, e)",
        {"o": np.float32(2), "k": ints(2, 3)},
        [8],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_pass(name: str) -> None:
    body, constants, sizes = CASES[name]
    assert [group.size for group in check_exact(between(body, **constants))] == sizes


@pytest.mark.parametrize(("opset", "size"), [(18, 4), (21, 8)])
def test_group_normalisation(opset: int, size: int) -> None:
    """Channels that are normalised together go together: four groups of two, with numbers by group before opset 21."""
    body = "b = GroupNormalization <num_groups = 4> (a, p, q)"
    model = between(body, opset, p=random(size), q=random(size, seed=1))
    assert [group.size for group in find_groups(model.clone()).groups] == [4]
    if opset == 21:
        check_exact(model)


def test_group_normalisation_has_fewer_groups() -> None:
    body = "b = GroupNormalization <num_groups = 4> (a, p, q)"
    model = pruned(
        between(body, 21, p=random(8), q=random(8)), {"Conv_0": np.array([True, False, True, True])}
    )
    assert model.graph.node("GroupNormalization_0").attributes["num_groups"].value == 3


def test_group_normalisation_keeps_its_image() -> None:
    text = """agraph (float[2,8,5] x) => (float[2,8,3] y) <float[2,8,12] b> {
        a = MatMul(x, w) b = GroupNormalization <num_groups = 4> (a, s, c) y = MatMul(b, v) }"""
    found = find_groups(
        ready(make_model(text, 21, w=random(5, 12), v=random(12, 3), s=random(8), c=random(8)))
    )
    assert not found.groups
    assert found.whole[0].reason == "GroupNormalization 'GroupNormalization_0' averages over it"


KEPT = {
    **{
        f"{name} '{name}_0' needs all of it": f"b = {name} <axis = 1> (a)"
        for name in ("Softmax", "LogSoftmax", "Hardmax")
    },
    **{
        f"{name} '{name}_0' needs all of it": f"d = {name}(a, i) b = Mul(a, d)"
        for name in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")
    },
    "Shape 'Shape_0' gives its size": "d = Shape(a) e = Expand(o, d) b = Mul(a, e)",
    "CumSum 'CumSum_0' is not followed": "b = CumSum(a, two)",
}


@pytest.mark.parametrize("reason", KEPT)
def test_channels_stay(reason: str) -> None:
    found = find_groups(between(KEPT[reason], i=ints(1), o=np.float32(2), two=np.int64(2)))
    assert not found.groups
    assert reason in {each.reason for each in found.whole}


LAYER = "agraph (float[2,4,5] x) => (float[2,4,3] y) { a = MatMul(x, w) "


def layer(body: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, str | None]:
    """A normalisation of 12 columns, of which 7 stay: constants, what it reads of those, what the model gives, and why it is inexact."""
    constants = {"w": random(5, 12), "v": random(12, 3), "s": random(12), "c": random(12, seed=1)}
    model = ready(make_model(LAYER + body + " y = MatMul(b, v) }", 23, **constants))
    (group,) = find_groups(model.clone()).groups
    kept = choice([group], 0.5, 1)
    feeds, mask = random_feeds(model), kept[group.name]
    (given,) = reference(pruned(model, kept), feeds)
    left = {name: array[..., mask] if name != "v" else array[mask] for name, array in constants.items()}
    return left, feeds["x"].astype(np.float64) @ left["w"], given, group.inexact


def test_layer_normalisation_is_that_of_what_is_left() -> None:
    left, rows, given, inexact = layer("b = LayerNormalization <epsilon = 0.001> (a, s, c)")
    centred = rows - rows.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(given, (normal * left["s"] + left["c"]) @ left["v"], rtol=1e-4, atol=1e-4)
    assert inexact == "LayerNormalization 'LayerNormalization_0' averages over what is left"


def test_root_mean_squares_are_those_of_what_is_left() -> None:
    left, rows, given, inexact = layer("b = RMSNormalization <epsilon = 0.001> (a, s)")
    normal = rows / np.sqrt(np.square(rows).mean(axis=-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(given, (normal * left["s"]) @ left["v"], rtol=1e-4, atol=1e-4)
    assert inexact == "RMSNormalization 'RMSNormalization_0' averages over what is left"


def test_the_mean_of_channels_is_that_of_what_is_left() -> None:
    model = between("d = ReduceMean(a, i) b = Sub(a, d)", i=ints(1))
    (group,) = find_groups(model).groups
    assert group.inexact == "ReduceMean 'ReduceMean_0' averages over what is left"


def test_lrn_looks_at_the_channels_beside_that_are_left() -> None:
    model = between("b = LRN <size = 3, alpha = 0.5, bias = 2.0> (a)")
    (group,) = find_groups(model.clone()).groups
    kept = np.array([1, 0, 0, 1, 1, 0, 1, 1], bool)
    (given,) = reference(pruned(model, {group.name: kept}), random_feeds(model))
    plain = between(
        "b = LRN <size = 3, alpha = 0.5, bias = 2.0> (a)",
        w=random(8, 3, 3, 3)[kept],
        v=random(4, 8, 1, 1)[:, kept],
    )
    np.testing.assert_array_equal(given, reference(plain, random_feeds(model))[0])
    assert group.inexact == "LRN 'LRN_0' looks at the channels beside"


def test_normalisations_of_onnx_runtime() -> None:
    text = "agraph (float[2,4,5] x) => (float[2,4,3] y) <float[2,4,12] b> { a = MatMul(x, w) b = SimplifiedLayerNormalization(a, s) y = MatMul(b, v) }"
    model = ready(make_model(text, w=random(5, 12), v=random(12, 3), s=random(12)))
    (group,) = find_groups(model).groups
    assert (
        group.inexact
        == "SimplifiedLayerNormalization 'SimplifiedLayerNormalization_0' averages over what is left"
    )


STAY = {
    "LayerNormalization 'LayerNormalization_0' gives its means": (
        "b, m = LayerNormalization(a, s) c = Add(b, m)",
        "",
    ),
    "LayerNormalization 'LayerNormalization_0' combines it with what stays": (
        "b = LayerNormalization(a, t) c = Relu(b)",
        ", float[12] t",
    ),
    "the rank of what LayerNormalization 'LayerNormalization_0' reads is not known": (
        "t = Reshape(s, u) b = LayerNormalization(a, t) c = Relu(b)",
        ", int64[n] u",
    ),
}


@pytest.mark.parametrize("reason", STAY)
def test_channels_of_layers_stay(reason: str) -> None:
    body, more = STAY[reason]
    text = f"agraph (float[2,4,5] x{more}) => (float[2,4,3] y) {{ a = MatMul(x, w) {body} y = MatMul(c, v) }}"
    found = find_groups(ready(make_model(text, 23, w=random(5, 12), v=random(12, 3), s=random(12))))
    assert not found.groups
    assert found.whole[0].reason == reason


def test_a_scale_that_is_computed_of_a_constant_has_its_channels() -> None:
    """The twin: such a scale goes with them."""
    text = """agraph (float[2,4,5] x) => (float[2,4,3] y) {
        a = MatMul(x, w) t = Relu(s) b = LayerNormalization(a, t) y = MatMul(b, v) }"""
    (group,) = find_groups(ready(make_model(text, 23, w=random(5, 12), v=random(12, 3), s=random(12)))).groups
    assert group.size == 12


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("ReduceL1", True),
        ("ReduceL2", True),
        ("ReduceSum", True),
        ("ReduceSumSquare", True),
        ("ReduceMean", False),
    ],
)
def test_what_sums_up_channels_is_exact_for_zeros(name: str, exact: bool) -> None:
    """A norm of what is left is that of all where the others are zero; a mean is not, and the group says so."""
    body, constants = f"d = {name}(a, i) b = Sub(a, d)", {"i": ints(1)}
    model = between(body, **constants)
    (group,) = find_groups(model.clone()).groups
    kept = np.arange(8) % 3 != 0
    zeros = between(
        body,
        **constants,
        w=random(8, 3, 3, 3) * kept[:, None, None, None],
        v=random(4, 8, 1, 1) * kept[:, None, None],
    )
    feeds = random_feeds(model)
    (given,), (wanted,) = reference(pruned(model, {group.name: kept}), feeds), reference(zeros, feeds)
    assert np.allclose(given, wanted, rtol=1e-4, atol=1e-4) == exact
    assert (group.inexact is None) == exact
