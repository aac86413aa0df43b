"""Global pools, DepthToSpace and SpaceToDepth are recognised."""

import numpy as np
import pytest

from tests.conftest import make_model
from tests.passes.fuse.checking import fuse, reasons


@pytest.mark.parametrize(
    ("body", "opset", "out", "expected"),
    [
        ("y = ReduceMean<axes = [2, 3]>(x)", 13, "1,4,1,1", ["GlobalAveragePool"]),
        ("y = ReduceMean(x, axes)", 18, "1,4,1,1", ["GlobalAveragePool"]),
        ("y = ReduceMax<axes = [2, 3]>(x)", 13, "1,4,1,1", ["GlobalMaxPool"]),
        ("y = AveragePool<kernel_shape = [6, 8]>(x)", 13, "1,4,1,1", ["GlobalAveragePool"]),
        ("y = MaxPool<kernel_shape = [6, 8], strides = [2, 2]>(x)", 13, "1,4,1,1", ["GlobalMaxPool"]),
    ],
)
def test_global_pool(body: str, opset: int, out: str, expected: list[str]) -> None:
    graph = make_model(
        f"agraph (float[1,4,6,8] x) => (float[{out}] y) {{ {body} }}", opset, axes=np.array([2, 3])
    )
    assert fuse(graph).applied["global pool"] == 1
    assert [node.op_type for node in graph.graph] == expected


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = ReduceMean<axes = [1, 2]>(x)", "1,1,1,8"),
        ("y = ReduceMean<axes = [-1, -2], keepdims = 0>(x)", "1,4"),
        ("y = ReduceMean<axes = [3]>(x)", "1,4,6,1"),
        ("y = AveragePool<kernel_shape = [6, 6]>(x)", "1,4,1,3"),
        ("y = AveragePool<kernel_shape = [6, 8], pads = [1, 0, 1, 0]>(x)", "1,4,3,1"),
    ],
)
def test_not_global(body: str, out: str) -> None:
    graph = make_model(f"agraph (float[1,4,6,8] x) => (float[{out}] y) {{ {body} }}", 13)
    assert not fuse(graph).modified


def shuffle(x: str, split: list[int], perm: list[int], y: list[int]):
    text = f"agraph (float[{x}] x) => (float[{','.join(map(str, y))}] y)"
    body = f"s = Reshape(x, split) t = Transpose<perm = {perm}>(s) y = Reshape(t, joined)"
    return make_model(f"{text} {{ {body} }}", 13, split=np.array(split), joined=np.array(y))


@pytest.mark.parametrize(
    ("graph", "op_type", "mode"),
    [
        (shuffle("1,12,3,5", [1, 2, 2, 3, 3, 5], [0, 3, 4, 1, 5, 2], [1, 3, 6, 10]), "DepthToSpace", None),
        (shuffle("1,12,3,5", [1, 3, 2, 2, 3, 5], [0, 1, 4, 2, 5, 3], [1, 3, 6, 10]), "DepthToSpace", "CRD"),
        (shuffle("2,3,6,10", [2, 3, 3, 2, 5, 2], [0, 3, 5, 1, 2, 4], [2, 12, 3, 5]), "SpaceToDepth", None),
    ],
)
def test_depth_and_space(graph, op_type: str, mode: str | None) -> None:
    assert fuse(graph).applied["depth and space"] == 1
    (node,) = graph.graph
    assert node.op_type == op_type
    assert node.attributes["blocksize"].value == 2
    found = node.attributes.get("mode")
    assert (found and found.value) == mode


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            shuffle("1,18,3,5", [1, 2, 3, 3, 3, 5], [0, 3, 4, 1, 5, 2], [1, 3, 6, 15]),
            "the blocks are not square",
        ),
        (
            shuffle("1,12,3,5", [1, 2, 2, 3, 5, 3], [0, 3, 4, 1, 5, 2], [1, 3, 10, 6]),
            "the axes are split or joined in another way",
        ),
    ],
)
def test_other_splits_stay(graph, reason: str) -> None:
    assert reasons(fuse(graph), "depth and space") == [reason]


def test_channel_shuffle_stays() -> None:
    assert not fuse(shuffle("1,6,2,2", [1, 2, 3, 2, 2], [0, 2, 1, 3, 4], [1, 6, 2, 2])).modified
