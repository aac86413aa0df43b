"""Groups of whole graphs: what stays at their edges, names, and messages."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.labels import Labels, along, line, tight
from graphopt.passes.prune.removal import remove
from tests.conftest import make_model
from tests.passes.prune.checking import between, check_exact, random, ready


def test_a_value_that_a_graph_inside_of_a_node_reads_stays() -> None:
    text = """agraph (float[2,3,6,6] x, bool k) => (float[2,4,6,6] y) {
        a = Conv(x, w) b = If (k) <then_branch = t () => (float[2,8,6,6] p) { p = Relu(a) },
        else_branch = e () => (float[2,8,6,6] q) { q = Neg(a) }> y = Conv(b, v) }"""
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1))))
    assert not found.groups
    assert found.whole[0].reason == "a graph inside of a node reads it"


def test_what_a_graph_gives_out_stays() -> None:
    text = "agraph (float[2,3,6,6] x) => (float[2,4,6,6] y, float[2,8,6,6] b) { a = Conv(x, w) b = Relu(a) y = Conv(b, v) }"
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1))))
    assert not found.groups
    assert [each.reason for each in found.whole] == ["it is the output 'b'", "it is the output 'y'"]


def test_an_input_that_a_rule_does_not_look_at_stays() -> None:
    """The grid of a sampling."""
    text = """agraph (float[2,4,4,3] x, float[2,2,6,6] z) => (float[2,2,4,4] y) {
        g = MatMul(x, w) h = MatMul(g, u) y = GridSample(z, h) }"""
    found = find_groups(ready(make_model(text, w=random(3, 8), u=random(8, 2))))
    assert [group.name for group in found.groups] == ["MatMul_0"]
    assert found.whole[0].reason == "GridSample 'GridSample_0' needs it whole"


def test_parts_of_one_maker_are_numbered() -> None:
    body = "d, e = Split <axis = 1> (a, s) b = Concat <axis = 1> (e, d)"
    found = find_groups(between(body, s=np.array([2, 6])))
    assert [group.name for group in found.groups] == ["Conv_0", "Conv_0#2"]


def test_groups_that_are_not_named_stay_whole() -> None:
    model = between("b = Conv(a, k)", k=random(8, 8, 3, 3))
    structure = find_groups(model)
    left = remove(structure, {"Conv_1": np.arange(8) < 3})
    assert {name: mask.sum() for (name, _), mask in left.items()} == {"b": 3}
    assert {name: value.shape.numpy() for name, value in model.graph.initializers.items()} == {
        "w": (8, 3, 3, 3),
        "k": (3, 8, 3, 3),
        "v": (4, 3, 1, 1),
    }


def test_nothing_removed_is_nothing_changed() -> None:
    model = between("b = Conv(a, k)", k=random(8, 8, 3, 3))
    assert remove(find_groups(model), {}) == {}
    assert len(check_exact(model)) == 2


def test_a_model_without_weights() -> None:
    found = find_groups(ready(make_model("agraph (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")))
    assert (found.groups, found.whole) == ([], [])


def test_labels_that_meet_are_one() -> None:
    labels = Labels()
    left, right = labels.fresh(3, 0, 2), labels.fresh(3, 0, 2)
    labels.join(left, right)
    classes, reasons = labels.settle([left, right])
    np.testing.assert_array_equal(classes[left], classes[right])
    assert len(np.unique(classes)) == 3
    assert not reasons


def test_labels_that_do_not_fit_stay() -> None:
    labels = Labels()
    left, right = labels.fresh(3, 0, 1), labels.fresh(4, 0, 1)
    labels.join(left, right)
    _, reasons = labels.settle([left, right])
    assert set(reasons.values()) == {"it is repeated as often as a free dimension says"}
    assert len(reasons) == 7


def test_a_block_of_heads_goes_along_what_was_joined() -> None:
    labels = Labels()
    block = labels.fresh(12, 0, 1).reshape(3, 4)
    labels.collapse(block, 0)
    classes, _ = labels.settle([block])
    axis, numbers = line(classes[block])
    assert axis == 0
    assert len(np.unique(numbers)) == 3


def test_a_ragged_block_goes_along_its_longest_axis() -> None:
    labels = Labels()
    block = labels.fresh(12, 0, 1).reshape(3, 4)
    classes, _ = labels.settle([block])
    axis, numbers = line(classes[block])
    assert (axis, len(np.unique(numbers))) == (1, 4)


def test_repeated_axes_are_left_out() -> None:
    block = np.broadcast_to(along(np.arange(3), 0, 2), (3, 4))
    assert tight(block).shape == (3, 1)


@pytest.mark.parametrize("kept", [1, 7])
def test_one_channel_and_all_but_one(kept: int) -> None:
    model = between("b = Relu(a)")
    remove(find_groups(model), {"Conv_0": np.arange(8) < kept})
    assert model.graph.initializers["w"].shape.numpy() == (kept, 3, 3, 3)
