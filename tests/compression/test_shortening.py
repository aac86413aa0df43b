"""Models without some of their layers: which go, what makes up for them, and bad requests."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.datasets import load_digits

from graphopt.accuracy.evaluation import Judge
from graphopt.accuracy.verify import reference
from graphopt.compression import shortening
from graphopt.compression.shortening import shorten
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from tests.conftest import make_model
from tests.passes.prune.checking import random

TRANSFORMER = Path(__file__).parents[2] / "models" / "digits_transformer.onnx"


def blocks(*strengths: float) -> ir.Model:
    """Residual blocks, the branches of which are so strong, between two products."""
    nodes, constants = ["a0 = MatMul(x, first)"], {"first": random(6, 8), "last": random(8, 3)}
    for number, strength in enumerate(strengths):
        nodes += [f"b{number} = MatMul(a{number}, v{number})", f"c{number} = Relu(b{number})"]
        nodes += [f"d{number} = MatMul(c{number}, w{number})", f"a{number + 1} = Add(a{number}, d{number})"]
        constants[f"v{number}"] = random(8, 16, seed=number)
        constants[f"w{number}"] = strength * random(16, 8, seed=number)
    nodes.append(f"y = MatMul(a{len(strengths)}, last)")
    return make_model(
        f"agraph (float[N,6] x) => (float[N,3] y) {{ {' '.join(nodes)} }}",
        **{name: array.astype(np.float32) for name, array in constants.items()},
    )


def samples(count: int = 96) -> Dataset:
    return Dataset({"x": np.random.default_rng(1).standard_normal((count, 6)).astype(np.float32)})


def test_the_weakest_branches_go() -> None:
    done = shorten(blocks(1.0, 0.01, 1.0, 0.02), 2, samples(), correct=False)
    assert [gone.unit.exit for gone in done.layers] == ["a2", "a4"]
    assert done.layers[0].sqnr_db > done.layers[1].sqnr_db
    assert sum(node.op_type == "MatMul" for node in done.model.graph) == 6
    assert list(done.steps) == ["original", "removed"]
    zeroed = blocks(1.0, 0.0, 1.0, 0.0)
    feeds = next(samples().batches(8))
    np.testing.assert_allclose(
        *(next(iter(reference(each)(feeds).values())) for each in (done.model, zeroed)), rtol=1e-4, atol=1e-5
    )


def test_what_is_left_makes_up_for_them() -> None:
    steps = shorten(blocks(0.3, 0.3, 0.3), 1, samples(400), samples=400).steps
    assert list(steps) == ["original", "removed", "corrected"]
    removed, corrected = (steps[name].evaluation for name in ("removed", "corrected"))
    assert removed is not None
    assert corrected is not None
    assert corrected.sqnr_db > removed.sqnr_db + 3


def test_blocks_of_a_transformer(tmp_path: Path) -> None:
    digits = load_digits()
    tokens = digits.images[:128].reshape(128, -1).astype(np.int64)
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    data = Dataset(feeds, digits.target[:128].astype(np.int64))
    done = shorten(TRANSFORMER, 2, data, tmp_path / "shorter.onnx", samples=128)
    assert done.steps["corrected"].statistics.macs < done.steps["original"].statistics.macs
    cost = done.steps["corrected"].evaluation
    assert cost is not None
    assert cost.agreement is not None
    assert cost.agreement > 0.9
    assert (tmp_path / "shorter.onnx").exists()
    assert [len(each["nodes"]) > 0 for each in done.to_json()["layers"]] == [True, True]


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shorten(blocks(0.1, 0.1), 1, samples(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_layers_are_ranked_on_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortening, "RANKED", 16)
    counts = set()
    judge = Judge.judge

    def counted(one: Judge, changed: ir.Model) -> object:
        found = judge(one, changed)
        counts.add(found.samples)
        return found

    monkeypatch.setattr(Judge, "judge", counted)
    shorten(blocks(0.1, 0.1), 1, samples(96), samples=96)
    assert counts == {16, 96}


PLAIN = "agraph (float[N,6] x) => (float[N,3] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
INTEGERS = """agraph (float[N,6] x) => (int64[N,1] y) {
    a = MatMul(x, w) b = Add(x, a) y = ArgMax <axis = 1> (b)
}"""

BAD = {
    "0 layers are none": (lambda: blocks(1.0), 0, {}),
    "only 1 of 2 layers can be removed": (lambda: blocks(1.0), 2, {}),
    "no layer of this model can be removed": (
        lambda: make_model(PLAIN, w=random(6, 8), v=random(8, 3)),
        1,
        {},
    ),
    "no other residual branch that is not protected": (lambda: blocks(1.0), 1, {"protect": ("MatMul",)}),
    "no node or operator of the model matches 'Typo'": (lambda: blocks(1.0), 1, {"protect": ("Typo",)}),
    "no output of the model is of floats": (lambda: make_model(INTEGERS, w=random(6, 6)), 1, {}),
    "unknown metric": (lambda: blocks(1.0), 1, {"metric": "beauty"}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(message: str, tmp_path: Path) -> None:
    build, count, settings = BAD[message]
    with pytest.raises(GraphoptError, match=message):
        shorten(build(), count, samples(), tmp_path / "never.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_layers_are_not_ranked_without_data() -> None:
    with pytest.raises(GraphoptError, match="--layers needs --calib DATA"):
        shorten(blocks(1.0), 1, None)
