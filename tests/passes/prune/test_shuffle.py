"""Channel shuffles are opened while channels are removed, and closed again where they can be."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.shuffle import close_shuffles, open_shuffles
from tests.conftest import make_model, ops, random_feeds, reference
from tests.passes.prune.checking import check_exact, ints, pruned, random, ready

TEXT = """agraph (float[{batch},3,6,6] x) => (float[{batch},4,6,6] y) {{ a = Conv(x, w) r = Reshape(a, s)
    t = Transpose <perm = [0,2,1,3,4]> (r) b = Reshape(t, u) y = Conv <group = {groups}> (b, v) }}"""


def shuffled(groups: int = 1, batch: str = "2"):
    sizes = {"s": ints(0, 2, 4, 6, 6), "u": ints(0, 8, 6, 6)}
    weights = {"w": random(8, 3, 1, 1), "v": random(4, 8 // groups, 1, 1)}
    return make_model(TEXT.format(groups=groups, batch=batch), **weights, **sizes)


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_pass(groups: int) -> None:
    model = ready(shuffled(groups))
    assert ops(model) == {"Conv": 2, "Gather": 1}
    assert check_exact(model)[0].size == 8 // groups


@pytest.mark.parametrize("batch", ["2", "N"])
def test_opened_and_closed_it_is_the_same(batch: str) -> None:
    model = ready(shuffled(batch=batch))
    feeds = random_feeds(model)
    before = reference(shuffled(batch=batch), feeds)
    np.testing.assert_array_equal(reference(model, feeds)[0], before[0])
    assert close_shuffles(model) == 1
    assert ops(model) == {"Conv": 2, "Reshape": 2, "Transpose": 1}
    np.testing.assert_array_equal(reference(model, feeds)[0], before[0])


@pytest.mark.parametrize(
    ("kept", "closed"), [([1, 0, 1, 1, 1, 0, 1, 1], True), ([1, 0, 1, 1, 1, 1, 1, 1], False)]
)
def test_a_rectangle_that_is_left_is_a_shuffle_again(kept: list[int], closed: bool) -> None:
    model = ready(shuffled())
    (group,) = find_groups(model.clone()).groups
    smaller = pruned(model, {group.name: np.array(kept, bool)})
    assert ops(smaller)["Gather"] == 0 if closed else ops(smaller)["Gather"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[2,8,6,6] x) => (float[2,6,6,8] y) { r = Reshape(x, s) t = Transpose <perm = [0,3,4,1,2]> (r) y = Reshape(t, q) }",
        "agraph (float[2,8,6,6] x) => (float[2,8,6,6] y) { r = Reshape(x, s) y = Reshape(r, u) }",
        "agraph (float[2,8,6,6] x) => (float[2,8,6,6] y, float[2,4,2,6,6] t) { r = Reshape(x, s) t = Transpose <perm = [0,2,1,3,4]> (r) y = Reshape(t, u) }",
    ],
    ids=["axes that change places", "nothing that moves", "a part of it is an output"],
)
def test_what_is_no_shuffle_is_left(text: str) -> None:
    sizes = {"s": ints(2, 2, 4, 6, 6), "u": ints(2, 8, 6, 6), "q": ints(2, 6, 6, 8)}
    model = make_model(text, **sizes)
    assert open_shuffles(ready(model)) == 0
    assert "Gather" not in ops(model)
