"""Channels through convolutions and poolings."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from tests.conftest import make_model
from tests.passes.prune.checking import between, check_exact, pruned, random, ready

KERNEL = {"k": random(8, 8, 3, 3), "c": random(8)}

CASES = {
    "plain": ("b = Conv(a, k, c)", KERNEL, [8, 8]),
    "strided and dilated": (
        "b = Conv <strides = [2,2], dilations = [2,2], pads = [2,2,2,2]> (a, k, c)",
        KERNEL,
        [8, 8],
    ),
    "grouped": ("b = Conv <group = 2> (a, k, c)", {"k": random(8, 4, 3, 3), "c": random(8)}, [4, 4]),
    "depthwise": ("b = Conv <group = 8> (a, k, c)", {"k": random(8, 1, 3, 3), "c": random(8)}, [8]),
    "transposed": ("b = ConvTranspose <strides = [2,2]> (a, k, c)", KERNEL, [8, 8]),
    "transposed by groups": (
        "b = ConvTranspose <group = 2> (a, k, c)",
        {"k": random(8, 4, 3, 3), "c": random(8)},
        [4, 4],
    ),
    "transposed depthwise": (
        "b = ConvTranspose <group = 8> (a, k, c)",
        {"k": random(8, 1, 3, 3), "c": random(8)},
        [8],
    ),
    "depthwise with a multiplier": (
        "b = Conv <group = 8> (a, k)",
        {"k": random(16, 1, 3, 3), "v": random(4, 16, 1, 1)},
        [8],
    ),
    "transposed depthwise with a multiplier": (
        "b = ConvTranspose <group = 8> (a, k, c)",
        {"k": random(8, 2, 3, 3), "c": random(16), "v": random(4, 16, 1, 1)},
        [8],
    ),
    "grouped to fewer": (
        "b = Conv <group = 2> (a, k)",
        {"k": random(4, 4, 3, 3), "v": random(4, 4, 1, 1)},
        [4, 2],
    ),
    "grouped beside": (
        "d = Conv <group = 2, pads = [1,1,1,1]> (a, k) b = Add(a, d)",
        {"k": random(8, 4, 3, 3)},
        [4],
    ),
    "a kernel that is computed": ("d = Relu(k) b = Conv(a, d)", {"k": random(8, 8, 3, 3)}, [8]),
    "no bias": ("b = Conv(a, k)", {"k": KERNEL["k"]}, [8, 8]),
    "AveragePool": ("b = AveragePool <kernel_shape = [2,2]> (a)", {}, [8]),
    "GlobalAveragePool": ("b = GlobalAveragePool(a)", {}, [8]),
    "GlobalLpPool": ("b = GlobalLpPool <p = 2> (a)", {}, [8]),
    "GlobalMaxPool": ("b = GlobalMaxPool(a)", {}, [8]),
    "LpPool": ("b = LpPool <kernel_shape = [2,2], p = 2> (a)", {}, [8]),
    "MaxPool": ("b = MaxPool <kernel_shape = [2,2]> (a)", {}, [8]),
    "GridSample": ("b = GridSample(a, g)", {"g": random(2, 3, 3, 2)}, [8]),
    "RoiAlign": (
        "b = RoiAlign <output_height = 2, output_width = 2> (a, rois, images)",
        {"rois": np.array([[0, 0, 4, 4], [1, 1, 3, 5]], np.float32), "images": np.array([0, 1])},
        [8],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_pass(name: str) -> None:
    body, constants, sizes = CASES[name]
    assert [group.size for group in check_exact(between(body, **constants))] == sizes


def test_makers_and_readers() -> None:
    first, second = find_groups(between("b = Conv(a, k, c)", **KERNEL)).groups
    assert (first.name, first.nodes) == ("Conv_0", ["Conv_0", "Conv_1"])
    assert (second.name, second.nodes) == ("Conv_1", ["Conv_1", "Conv_2"])
    assert {(slot.value.name, slot.axis) for slot in first.slots} == {("w", 0), ("k", 1)}
    assert {(slot.value.name, slot.axis) for slot in second.slots} == {("k", 0), ("c", 0), ("v", 1)}
    assert (first.readers[0].data.value.name, first.readers[0].data.axis) == ("a", 1)


def test_channels_go_from_all_weights() -> None:
    model = pruned(
        between("b = Conv <group = 8> (a, k)", k=random(8, 1, 3, 3)), {"Conv_0": np.arange(8) % 4 == 1}
    )
    shapes = {name: value.shape.numpy() for name, value in model.graph.initializers.items()}
    assert shapes == {"w": (2, 3, 3, 3), "k": (2, 1, 3, 3), "v": (4, 2, 1, 1)}
    assert model.graph[1].attributes["group"].value == 2
    np.testing.assert_array_equal(
        model.graph.initializers["w"].const_value.numpy(), random(8, 3, 3, 3)[[1, 5]], strict=True
    )


STAY = {
    "a filter of each group": (
        "b = Conv <group = 4> (a, k)",
        {"k": random(4, 2, 3, 3), "v": random(4, 4, 1, 1)},
        "all 4 elements of 'k' hang together",
    ),
    "rows of an image": (
        "d = MatMul(a, m) b = Conv(d, k)",
        {"m": random(6, 5), "k": random(8, 8, 3, 3)},
        "Conv 'Conv_1' slides along it",
    ),
    "rows of a pooled image": (
        "d = MatMul(a, m) b = MaxPool <kernel_shape = [2,2]> (d)",
        {"m": random(6, 5)},
        "MaxPool 'MaxPool_0' slides along it",
    ),
    "places in the image": (
        "d, i = MaxPool <kernel_shape = [2,2]> (a) e = Cast <to = 1> (i) b = Add(d, e)",
        {},
        "MaxPool 'MaxPool_0' gives places in it",
    ),
    "the output": ("b = Relu(a)", {}, "it is the output 'y'"),
}


@pytest.mark.parametrize("name", STAY)
def test_channels_stay(name: str) -> None:
    body, constants, reason = STAY[name]
    assert reason in {each.reason for each in find_groups(between(body, **constants)).whole}


def test_a_bias_that_is_computed_keeps_channels() -> None:
    text = "agraph (float[2,3,6,6] x, float[8] c) => (float[2,4,6,6] y) { a = Conv(x, w, c) y = Conv(a, v) }"
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1))))
    assert found.whole[0].reason == "Conv 'Conv_0' makes what stays"


UNKNOWN = {
    "Conv": "d = Reshape(k, t) b = Conv(a, d)",
    "ConvTranspose": "d = Reshape(k, t) b = ConvTranspose(a, d)",
    "Gemm": "f = Flatten(a) d = Reshape(k, t) b = Gemm(f, d)",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_weights_of_unknown_rank_keep_channels(name: str) -> None:
    text = (
        f"agraph (float[2,3,6,6] x, int64[n] t) => (float y) {{ a = Conv(x, w) {UNKNOWN[name]} y = Relu(b) }}"
    )
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), k=random(8, 8, 1, 1))))
    assert not found.groups
    assert found.whole[0].reason.startswith(f"the rank of what {name} ")


READERS = {
    "Conv": "a = Conv(r, w)",
    "ConvTranspose": "a = ConvTranspose(r, w)",
    "MaxPool": "a = MaxPool <kernel_shape = [2,2]> (r)",
    "Gemm": "a = Gemm(r, v)",
    "MatMul": "a = MatMul(r, v)",
}


@pytest.mark.parametrize("name", READERS)
def test_what_has_no_known_rank_has_no_channels(name: str) -> None:
    text = f"agraph (float[2,3,6,6] x, int64[n] t) => (float y) {{ r = Reshape(x, t) {READERS[name]} y = Relu(a) }}"
    model = ready(make_model(text, w=random(8, 8, 1, 1), v=random(8, 8)))
    assert not find_groups(model).groups
