"""Layers of a smaller model that are fitted to what they gave before."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.compression.reconstruction import reconstruct
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.model import edit
from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.removal import remove
from tests.conftest import make_model, reference
from tests.passes.prune.checking import random, ready

BODIES = {
    "Conv": "a = Conv <pads = [1,1,1,1]> (x, w) b = Relu(a) d = Conv(b, v, c) e = Relu(d) y = Conv(e, u)",
    "depthwise": "a = Conv <pads = [1,1,1,1]> (x, w) b = Conv <group = 8> (a, k) e = Relu(b) y = Conv(e, u)",
    "beside": "a = Conv <pads = [1,1,1,1]> (x, w) b = Relu(a) d = Conv(b, v, c) e = Add(a, d) y = Conv(e, u)",
}


def model(name: str) -> ir.Model:
    """Filters of four channels, each of which is there twice, all but equal."""
    twice = np.repeat(random(4, 3, 3, 3), 2, axis=0) + 0.05 * random(8, 3, 3, 3, seed=1)
    weights = {"v": random(8, 8, 1, 1), "u": random(4, 8, 1, 1), "k": random(8, 1, 3, 3), "c": random(8)}
    text = f"agraph (float[N,3,6,6] x) => (float[N,4,H,W] y) {{ {BODIES[name]} }}"
    return ready(make_model(text, w=twice.astype(np.float32), **weights))


def images(count: int, seed: int) -> np.ndarray:
    return random(count, 3, 6, 6, seed=seed)


@pytest.mark.parametrize("name", BODIES)
def test_errors_fall_on_images_that_were_not_seen(name: str) -> None:
    original = model(name)
    smaller = original.clone()
    structure = find_groups(smaller)
    kept = {structure.groups[0].name: np.arange(8) % 2 == 0}
    left = remove(structure, kept)
    feeds = {"x": images(20, 9)}
    (wanted,) = reference(original, feeds)
    before = np.square(reference(smaller, feeds)[0] - wanted).mean()
    stages: list[str] = []
    reconstruct(original, smaller, left, Dataset({"x": images(64, 3)}), 64, stages.append)
    after = np.square(reference(smaller, feeds)[0] - wanted).mean()
    assert after < 0.7 * before
    assert stages[-1].startswith("correct: layer")


def test_a_model_without_layers_is_left() -> None:
    plain = ready(make_model("agraph (float[N,3,6,6] x) => (float[N,3,6,6] y) { y = Relu(x) }"))
    smaller = plain.clone()
    reconstruct(plain, smaller, {}, Dataset({"x": images(4, 0)}), 4, lambda stage: None)
    assert [node.op_type for node in smaller.graph] == ["Relu"]


def test_fewer_samples_than_a_run_takes() -> None:
    text = "agraph (float[4,3] x) => (float[4,2] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    whole = ready(make_model(text, w=random(3, 8), v=random(8, 2)))
    data = Dataset({"x": random(3, 3)})
    with pytest.raises(DataError, match=r"has 3 sample\(s\), one run of the model takes 4"):
        reconstruct(whole, whole.clone(), {}, data, 3, lambda stage: None)


MIXER = """agraph (float[N,6,5] x) => (float[N,6,3] y) {
    a = MatMul(x, w) r = Relu(a) t = Transpose <perm = [0,2,1]> (r) m = MatMul(t, k) n = Relu(m) o = MatMul(n, l)
    s = Transpose <perm = [0,2,1]> (o) y = MatMul(s, v)
}"""


def test_layers_that_lost_positions_stay_as_they_are() -> None:
    """What mixes tokens sees channels as its rows. Of the others the first one gives what it gave."""
    weights = {"w": random(5, 8), "k": random(6, 10), "l": random(10, 6), "v": random(8, 3)}
    original = ready(make_model(MIXER, **weights))
    smaller = original.clone()
    structure = find_groups(smaller)
    left = remove(structure, {group.name: np.arange(group.size) % 2 == 0 for group in structure.groups})
    before = {name: edit.constant(value).copy() for name, value in smaller.graph.initializers.items()}
    reconstruct(original, smaller, left, Dataset({"x": random(64, 6, 5)}), 64, lambda stage: None)
    after = {name: edit.constant(smaller.graph.initializers[name]) for name in before}
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["v"]
