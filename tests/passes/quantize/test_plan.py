"""Which values become integers: golden plans, and what keeps nodes on floats."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model.inference import infer_shapes
from graphopt.passes.quantize.plan import TABLE, Plan, make_plan
from tests.conftest import make_model

RNG = np.random.default_rng(2)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
M = RNG.standard_normal((4, 5)).astype(np.float32)
IMAGE = "agraph (float[1,4,8,8] x) => (float[N,C,H,W] y)"


def plan(text: str, *exclude: str, **constants: np.ndarray) -> Plan:
    model = make_model(text, 18, w=W, v=W * 2, m=M, **constants)
    infer_shapes(model)
    return make_plan(model.graph, lambda node: node.op_type in exclude)


def names(values: list[ir.Value]) -> set[str | None]:
    return {value.name for value in values}


def test_inputs_of_convolutions() -> None:
    found = plan(f"{IMAGE} {{ a = Conv(x, w) r = Relu(a) y = Conv(r, v) }}")
    assert names(found.values) == {"x", "r"}
    assert len(found.anchors) == 2


def test_integers_pass_through_what_moves_them_with_one_range() -> None:
    text = "{ a = Conv(x, w) b = Conv(x, v) c = Concat<axis = 0>(a, b) p = MaxPool<kernel_shape = [2, 2]>(c) y = Conv(p, w) }"
    found = plan(f"{IMAGE} {text}")
    assert names(found.values) == {"x", "a", "b", "c", "p"}
    groups = {value.name: found.group(value) for value in found.values}
    assert len({groups[name] for name in ("a", "b", "c", "p")}) == 1
    assert groups["x"] is not groups["a"]


def test_an_addition_behind_a_convolution_reads_integers_that_are_there() -> None:
    padded = "<pads = [1, 1, 1, 1]>"
    text = f"{{ a = Conv{padded}(x, w) r = Relu(a) b = Conv{padded}(r, v) y = Add(b, r) }}"
    found = plan(f"{IMAGE} {text}")
    (r,) = (value for value in found.values if value.name == "r")
    assert [node.op_type for node in found.readers[r]] == ["Conv", "Add"]


def test_a_product_leaves_additions_alone() -> None:
    found = plan("agraph (float[2,4] x, float[2,5] b) => (float[2,5] y) { a = MatMul(x, m) y = Add(a, b) }")
    assert names(found.values) == {"x"}
    assert [node.op_type for node in found.anchors] == ["MatMul"]


@pytest.mark.parametrize(
    ("text", "exclude", "reason"),
    [
        (f"{IMAGE} {{ y = Conv(x, x) }}", (), "run time"),
        (f"{IMAGE} {{ y = Conv(x, w) }}", ("Conv",), "excluded"),
        ("agraph (float[2,5] x) => (float[4,5] y) { y = MatMul(m, m) }", (), "constant"),
    ],
)
def test_what_stays_float_and_why(text: str, exclude: tuple[str, ...], reason: str) -> None:
    found = plan(text, *exclude)
    assert found.anchors == []
    assert all(reason in each for each in found.left_out.values())
    assert len(found.left_out) == 1


def test_only_large_tables_are_looked_up_as_integers() -> None:
    text = "agraph (int64[3] i) => (float[3,C] y) { y = Gather(t, i) }"
    large, small = np.zeros((TABLE // 8, 8), np.float32), np.zeros((10, 8), np.float32)
    assert len(plan(text, t=large).tables) == 1
    assert plan(text, t=small).tables == []
    assert plan(text, "Gather", t=large).tables == []
