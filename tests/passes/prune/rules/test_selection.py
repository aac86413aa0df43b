"""Channels that are cut and put together."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from tests.conftest import make_model
from tests.passes.prune.checking import between, check_exact, ints, pruned, random, ready

V16, V4, V2 = random(4, 16, 1, 1), random(4, 4, 1, 1), random(4, 2, 1, 1)


CASES = {
    "Concat": ("d = Relu(a) b = Concat <axis = 1> (d, a)", {"v": V16}, [8]),
    "Concat of two": (
        "d = Conv(x, k) e = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (d) b = Concat <axis = -3> (a, e)",
        {"k": random(8, 3, 1, 1), "v": V16},
        [8, 8],
    ),
    "Concat with an input": ("b = Concat <axis = 1> (a, x)", {"v": random(4, 11, 1, 1)}, [8]),
    "Concat along the image": ("b = Concat <axis = 2> (a, a)", {}, [8]),
    "Slice": ("b = Slice(a, s, e, i)", {"s": ints(2), "e": ints(6), "i": ints(1), "v": V4}, [4, 4]),
    "Slice to the end": (
        "b = Slice(a, s, e, i)",
        {"s": ints(-4), "e": ints(2**62), "i": ints(-3), "v": V4},
        [4, 4],
    ),
    "Slice of the image": (
        "b = Slice(a, s, e, i, p)",
        {"s": ints(0), "e": ints(6), "i": ints(2), "p": ints(2)},
        [8],
    ),
    "Split": (
        "d, e = Split <axis = 1, num_outputs = 2> (a) f = Sigmoid(d) b = Mul(f, e)",
        {"v": V4},
        [4],
    ),
    "Split in parts": (
        "d, e = Split <axis = 1> (a, s) b = Concat <axis = 1> (e, d)",
        {"s": ints(2, 6)},
        [2, 6],
    ),
    "Split of the image": ("d, e = Split <axis = 2, num_outputs = 2> (a) b = Add(d, e)", {}, [8]),
    "Gather": ("b = Gather <axis = 1> (a, i)", {"i": ints(7, 0, 0, -2, 3, 1, 2, 4)}, [7]),
    "Gather of one": (
        "d = Gather <axis = 1> (a, i) e = Unsqueeze(d, o) b = Mul(a, e)",
        {"i": np.int64(-3), "o": ints(1)},
        [7],
    ),
    "Gather of the image": ("b = Gather <axis = 2> (a, i)", {"i": ints(1, 1, 0)}, [8]),
    "Pad": ("b = Pad(a, p)", {"p": ints(0, 3, 1, 1, 0, 5, 1, 1), "v": V16}, [8]),
    "Pad of the image": ('b = Pad <mode = "reflect"> (a, p)', {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}, [8]),
    "Pad by axes": ("b = Pad(a, p, , i)", {"p": ints(2, 1, 6, 1), "i": ints(1, -1), "v": V16}, [8]),
    "Pad and a sum": (
        "d = Conv(x, k) e = Pad(d, p) b = Add(a, e)",
        {"k": random(4, 3, 1, 1), "p": ints(0, 2, 0, 0, 0, 2, 0, 0)},
        [4, 4],
    ),
    "Tile": ("b = Tile(a, r)", {"r": ints(1, 2, 1, 3), "v": V16}, [8]),
    "DepthToSpace": ("b = DepthToSpace <blocksize = 2> (a)", {"v": V2}, [2]),
    "DepthToSpace by columns": ('b = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', {"v": V2}, [2]),
    "SpaceToDepth": ("b = SpaceToDepth <blocksize = 2> (a)", {"v": random(4, 32, 1, 1)}, [8]),
    "Resize by factors": ("b = Resize(a, , f)", {"f": np.array([1, 1, 2, 2], np.float32)}, [8]),
    "Resize to sizes": ("b = Resize(a, , , s)", {"s": ints(2, 8, 9, 5)}, [8]),
    "Resize to sizes of axes": ("b = Resize <axes = [1,2]> (a, , , s)", {"s": ints(8, 9)}, [8]),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_pass(name: str) -> None:
    body, constants, sizes = CASES[name]
    assert [group.size for group in check_exact(between(body, **constants))] == sizes


OLD = {
    "Slice": (9, "b = Slice <starts = [2], ends = [6], axes = [1]> (a)", V4, [4, 4]),
    "Split": (11, "d, e = Split <axis = 1, split = [4,4]> (a) b = Mul(d, e)", V4, [4]),
    "Pad": (10, "b = Pad <pads = [0,4,0,0,0,4,0,0]> (a)", V16, [8]),
    "Upsample": (9, "b = Upsample(a, f)", random(4, 8, 1, 1), [8]),
}


@pytest.mark.parametrize("name", OLD)
def test_old_versions(name: str) -> None:
    opset, body, reader, sizes = OLD[name]
    model = between(body, opset, f=np.array([1, 1, 2, 2], np.float32), v=reader)
    assert [group.size for group in check_exact(model)] == sizes


KEPT = {
    "Slice 'Slice_0' takes steps": (
        "b = Slice(a, s, e, i, p)",
        {"s": ints(0), "e": ints(8), "i": ints(1), "p": ints(2), "v": V4},
    ),
    "Pad 'Pad_0' repeats it": (
        'b = Pad <mode = "edge"> (a, p)',
        {"p": ints(0, 4, 0, 0, 0, 4, 0, 0), "v": V16},
    ),
    "Slice 'Slice_0' computes its places": (
        "n = Shape <start = 1, end = 2> (x) b = Slice(a, n, e, i)",
        {"e": ints(8), "i": ints(1), "v": random(4, 5, 1, 1)},
    ),
    "Gather 'Gather_0' computes its indices": (
        "m = ArgMax <axis = 0, keepdims = 0> (u) b = Gather <axis = 1> (a, m)",
        {"u": random(2, 8)},
    ),
    "Pad 'Pad_0' computes its sizes": (
        "n = Shape <start = 2> (x) m = Sub(n, n) l = Concat <axis = 0> (z, m, z, m) b = Pad(a, l)",
        {"z": ints(0, 0)},
    ),
    "Tile 'Tile_0' computes its repeats": (
        "n = Shape(x) m = Div(n, n) b = Tile(a, m)",
        {},
    ),
    "Resize 'Resize_0' resizes it": (
        "b = Resize(a, , f)",
        {"f": np.array([1, 2, 1, 1], np.float32), "v": V16},
    ),
    "Resize 'Resize_0' computes its sizes": (
        "n = Shape <start = 2> (x) s = Concat <axis = 0> (h, n) d = Relu(a) b = Resize(d, , , s)",
        {"h": ints(2, 8)},
    ),
    "Gather 'Gather_0' needs all that it takes": (
        "d = Gather <axis = 1> (a, i) b = Reshape(d, t)",
        {"i": np.arange(8).reshape(2, 4), "t": ints(2, 8, 6, 6)},
    ),
}


@pytest.mark.parametrize("reason", KEPT)
def test_channels_stay(reason: str) -> None:
    body, constants = KEPT[reason]
    found = find_groups(between(body, **constants))
    assert not found.groups
    assert found.whole[0].reason == reason


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_places_keep_their_type(dtype: type) -> None:
    places = {name: np.array([number], dtype) for name, number in (("s", 2), ("e", 6), ("i", 1))}
    model = pruned(
        between("b = Slice(a, s, e, i)", **places, v=V4), {"Conv_0#2": np.array([True, False, True, True])}
    )
    assert [each.dtype.numpy() for each in model.graph.node("Slice_0").inputs[1:]] == [dtype] * 3


ROWS = {
    "DepthToSpace 'DepthToSpace_0' moves it": ("DepthToSpace <blocksize = 2>", 12),
    "SpaceToDepth 'SpaceToDepth_0' moves it": ("SpaceToDepth <blocksize = 2>", 3),
}


@pytest.mark.parametrize("reason", ROWS)
def test_columns_of_an_image_stay(reason: str) -> None:
    operator, columns = ROWS[reason]
    text = f"agraph (float[2,8,4,5] x) => (float[N,C,H,W] y) {{ a = MatMul(x, w) b = {operator} (a) y = MatMul(b, v) }}"
    found = find_groups(ready(make_model(text, w=random(5, 6), v=random(columns, 3))))
    assert not found.groups
    assert found.whole[0].reason == reason
