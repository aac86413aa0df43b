"""Slopes of losses in weights, against finite differences."""

import numpy as np
import pytest

pytest.importorskip("torch")

from graphopt.compression.pruning import Target, prune
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.importance import IMPORTANCE, Evidence
from graphopt.training.slopes import BATCHES, slopes
from tests.conftest import make_model, reference
from tests.passes.prune.checking import random, ready

TEXT = "agraph (float[N,3] x) => (float[N,4] y) { a = MatMul(x, w) b = Tanh(a) y = MatMul(b, v) }"


def model(w: np.ndarray):
    return ready(make_model(TEXT, w=w, v=random(8, 4)))


def entropy(w: np.ndarray, x: np.ndarray, labels: np.ndarray) -> float:
    """Of the labels, of one sample."""
    logits = reference(model(w), {"x": x})[0].astype(np.float64)
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]).sum())


@pytest.mark.parametrize("labelled", [True, False])
def test_against_finite_differences(labelled: bool) -> None:
    w, x = random(3, 8), random(4, 3)
    own = reference(model(w), {"x": x})[0].argmax(axis=1)
    labels = np.array([0, 1, 3, 2]) if labelled else own
    data = Dataset({"x": x}, labels if labelled else None)
    found = slopes(model(w), data, 4, lambda stage: None)
    total = found["w"].reshape(-1, 3, 8).sum(axis=0)
    for place in [(0, 0), (2, 5), (1, 7)]:
        step = np.zeros_like(w)
        step[place] = 1e-2
        expected = (entropy(w + step, x, labels) - entropy(w - step, x, labels)) / 2e-2
        scale = 1.0 if len(found["w"]) == len(x) else len(x)
        assert total[place] * scale == pytest.approx(expected, rel=2e-2, abs=2e-3)


def test_parts_of_the_samples() -> None:
    found = slopes(model(random(3, 8)), Dataset({"x": random(50, 3)}), 50, lambda stage: None)
    assert {name: array.shape[1:] for name, array in found.items()} == {"w": (3, 8), "v": (8, 4)}
    assert 1 <= len(found["w"]) <= BATCHES


def test_other_models_have_random_signs() -> None:
    """No classifier: the same seed gives the same slopes."""
    text = "agraph (float[N,3] x) => (float[N,2,4] y) { a = MatMul(x, w) b = Reshape(a, s) y = Tanh(b) }"
    weights = {"w": random(3, 8), "s": np.array([-1, 2, 4])}
    data = Dataset({"x": random(6, 3)})
    one, same, other = (
        slopes(ready(make_model(text, **weights)), data, 6, lambda stage: None, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one["w"], same["w"])
    assert np.abs(one["w"] - other["w"]).max() > 0


def test_channels_are_ranked_by_them() -> None:
    """A channel that nothing depends on is worth least."""
    w = random(3, 8)
    w[:, 5] = 0
    found = slopes(model(w), Dataset({"x": random(20, 3)}), 20, lambda stage: None)
    (group,) = find_groups(model(w)).groups
    assert IMPORTANCE["taylor"](group, Evidence(slopes=found)).argmin() == 5
    done = prune(model(w), Target("channels", 0.5), Dataset({"x": random(20, 3)}), importance="taylor")
    assert list(done.groups.values()) == [(8, 4)]


BAD = {
    "one run of the model takes 4": (TEXT.replace("[N,", "[4,"), Dataset({"x": random(3, 3)})),
    "the model has none": (
        "agraph (float[N,3] x) => (int64[N,1] y) { a = MatMul(x, w) y = ArgMax <axis = 1> (a) }",
        Dataset({"x": random(8, 3)}),
    ),
    "beyond the 4 classes": (TEXT, Dataset({"x": random(8, 3)}, np.array([0, 1, 2, 3, 4, 0, 0, 0]))),
    "labels beyond": (TEXT, Dataset({"x": random(8, 3)}, np.array([0, 1, 2, 3, -1, 0, 0, 0]))),
}


@pytest.mark.parametrize("message", BAD)
def test_what_has_no_slopes(message: str) -> None:
    text, data = BAD[message]
    constants = {
        name: array for name, array in (("w", random(3, 8)), ("v", random(8, 4))) if f" {name})" in text
    }
    with pytest.raises(GraphoptError, match=message):
        slopes(ready(make_model(text, **constants)), data, 8, lambda stage: None)
