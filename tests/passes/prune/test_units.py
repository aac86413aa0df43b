"""Layers and blocks that a model can do without, and what is left when they go."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.passes.prune.units import Unit, find_units, remove_unit
from tests.conftest import make_model, random_feeds, reference
from tests.passes.prune.checking import random, ready

HEAD = "agraph (float[2,4,6,6] x) => (float[2,3,6,6] y) { a = Conv(x, first) a1 = Relu(a) "
TAIL = " y = Conv(b, last) }"

WEIGHTS = {
    "first": random(4, 4, 1, 1, seed=1),
    "last": random(3, 4, 1, 1),
    "v": random(8, 4, 3, 3),
    "w": random(4, 8, 3, 3),
    "square": random(4, 4, 1, 1),
    "wide": random(4, 3, 1, 1),
    "bias": random(4, 1, 1),
}


def model(body: str, tail: str = TAIL) -> ir.Model:
    """Nodes that make `b` of four channels `a1`, which a convolution and a Relu made."""
    text = HEAD + body + tail
    return ready(make_model(text, **{name: each for name, each in WEIGHTS.items() if name in text}))


BRANCH = "c = Conv <pads = [1,1,1,1]> (a1, v) d = Relu(c) e = Conv <pads = [1,1,1,1]> (d, w) "


def ends(found: ir.Model) -> set[tuple[str, str]]:
    return {(unit.entry, unit.exit) for unit in find_units(found)}


def without(found: ir.Model, entry: str, exit: str) -> ir.Model:
    """A copy without one of its units."""
    copy = found.clone()
    remove_unit(copy, next(each for each in find_units(copy) if (each.entry, each.exit) == (entry, exit)))
    onnx.checker.check_model(ir.to_proto(copy), full_check=True)
    return copy


def same(left: ir.Model, right: ir.Model) -> bool:
    feeds = random_feeds(left)
    return all(map(np.array_equal, reference(left, feeds), reference(right, feeds)))


@pytest.mark.parametrize("total", ["b = Add(a1, e)", "b = Add(e, a1)", "s = Add(e, a1) b = Relu(s)"])
def test_a_residual_branch(total: str) -> None:
    """What is left is what the model gives whose branch gives zeros."""
    before = model(BRANCH + total)
    exit = "s" if "s =" in total else "b"
    after = without(before, "a1", exit)
    assert "Add" not in {node.op_type for node in after.graph}
    assert len(list(after.graph)) == len(list(before.graph)) - 4
    zeroed = before.clone()
    value = zeroed.graph.initializers["w"]
    value.const_value = ir.Tensor(np.zeros_like(WEIGHTS["w"]), name="w")
    assert same(after, zeroed)


def test_what_a_unit_says() -> None:
    (found,) = [unit for unit in find_units(model(BRANCH + "b = Add(a1, e)")) if unit.exit == "b"]
    assert found == Unit("a1", "b", ("Conv_1", "Relu_1", "Conv_2", "Add_0"), 2 * 2 * 36 * 4 * 8 * 9)


GOLDEN = {
    "a layer and its activation": ("c = Conv(a1, square) b = Relu(c)", {("a1", "b"), ("x", "a1")}),
    "a bias of its own": ("c = Conv(a1, square) b = Add(c, bias)", {("a1", "b"), ("x", "a1")}),
    "two layers by way of another width": (BRANCH + "b = Relu(e)", {("a1", "b"), ("x", "a1")}),
    "a layer within a branch": (
        "c = Conv(a1, square) d = Relu(c) e = Conv(d, square) b = Add(a1, e)",
        {("a1", "b"), ("a1", "d"), ("d", "e"), ("x", "a1")},
    ),
    "a branch that is narrow inside, whose sum would count twice without it": (
        BRANCH + "b = Add(a1, e)",
        {("a1", "b"), ("x", "a1")},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_units(name: str) -> None:
    body, expected = GOLDEN[name]
    assert ends(model(body)) == expected


NONE = {
    "a branch with a projection beside it": BRANCH + "p = Conv(x, square) b = Add(p, e)",
    "a sum that multiplies nothing": "c = Relu(a1) b = Add(a1, c)",
    "a product of two values": BRANCH + "b = Mul(a1, e)",
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_none(name: str) -> None:
    assert ("a1", "b") not in ends(model(NONE[name]))


def test_what_is_given_out_stays() -> None:
    assert ends(model("y = Conv(a1, square)", " }".replace("3,6,6", "4,6,6"))) == {("x", "a1")}


def test_another_type_is_no_unit() -> None:
    text = """agraph (float[2,8] x) => (float[2,3] y) {
        i = Cast <to = 6> (x) j = MatMul(i, w) z = Cast <to = 1> (j) y = MatMul(z, v)
    }"""
    found = ready(make_model(text, w=np.ones((8, 8), np.int32), v=random(8, 3)))
    assert ends(found) == {("i", "j")}


def test_protected_layers_stay() -> None:
    before = model(BRANCH + "b = Add(a1, e)")
    assert not find_units(before, lambda node: node.op_type == "Conv")
    assert find_units(before, lambda node: node.name == "Conv_3")


def test_unknown_shapes_are_not_like_any() -> None:
    before = model(BRANCH + "b = Add(a1, e)")
    next(node for node in before.graph if node.op_type == "Add").outputs[0].shape = None
    assert ("a1", "b") not in ends(before)


def test_what_takes_the_place_of_all_is_called_like_it() -> None:
    """So that it is fitted to what was there; not where others read it as it was."""
    alone = without(model(BRANCH + "b = Add(a1, e)"), "a1", "b")
    assert [value.name for node in alone.graph for value in node.outputs] == ["a", "b", "y"]
    shared = without(model(BRANCH + "s = Add(a1, e) t = Sigmoid(a1) b = Mul(s, t)"), "a1", "s")
    assert "a1" in [value.name for node in shared.graph for value in node.outputs]
