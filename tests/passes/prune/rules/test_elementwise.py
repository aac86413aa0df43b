"""Channels through operators on elements."""

import numpy as np
import pytest

from graphopt.passes.prune.groups import find_groups
from graphopt.passes.prune.rules.elementwise import BROADCAST, UNARY
from tests.conftest import make_model
from tests.passes.prune.checking import between, check_exact, random, ready

TO_BOOL = {"IsInf", "IsNaN"}
NEWER = {"Gelu": 20, "Mish": 18, "Swish": 24, "BitwiseNot": 18}
BODIES = {
    "Cast": "b = Cast <to = 1> (a)",
    "IsInf": "t = IsInf(a) b = Cast <to = 1> (t)",
    "IsNaN": "t = IsNaN(a) b = Cast <to = 1> (t)",
    "Not": "s = Greater(a, zero) t = Not(s) b = Cast <to = 1> (t)",
    "BitwiseNot": "s = Cast <to = 7> (a) t = BitwiseNot(s) b = Cast <to = 1> (t)",
    "Clip": "b = Clip(a, zero)",
    **{name: f"s = Abs(a) t = Add(s, one) b = {name}(t)" for name in ("Log", "Sqrt", "Acosh", "Reciprocal")},
    **{name: f"s = Sin(a) t = Mul(s, half) b = {name}(t)" for name in ("Acos", "Asin", "Atanh", "Tan")},
}
NUMBERS = {"zero": np.float32(0), "one": np.float32(1.5), "half": np.float32(0.9)}

COMPARED = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGICAL = ("And", "Or", "Xor")
PAIRS = {
    **{name: f"t = {name}(a, c) b = Cast <to = 1> (t)" for name in COMPARED},
    **{
        name: f"s = Greater(a, zero) r = Less(a, c) t = {name}(s, r) b = Cast <to = 1> (t)"
        for name in LOGICAL
    },
    "Where": "s = Greater(a, zero) b = Where(s, c, a)",
    "Mod": "b = Mod <fmod = 1> (a, c)",
    "Pow": "s = Abs(a) b = Pow(s, c)",
    "Max": "b = Max(a, c, zero)",
    "Mean": "b = Mean(a, c, a)",
    "Sum": "b = Sum(c, a, zero)",
}


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name: str) -> None:
    if name == "Swish":
        pytest.skip("ONNX Runtime has no Swish")
    model = between(BODIES.get(name, f"b = {name}(a)"), NEWER.get(name, 18), **NUMBERS)
    assert [group.size for group in check_exact(model, (0.5,))] == [8]


@pytest.mark.parametrize("name", ["Gelu", "QuickGelu"])
def test_one_operand_of_onnx_runtime(name: str) -> None:
    assert [group.size for group in check_exact(between(f"b = com.microsoft.{name}(a)"))] == [8]


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 6, 6), (6,), ()], ids=str)
@pytest.mark.parametrize("name", BROADCAST)
def test_a_constant(name: str, shape: tuple[int, ...]) -> None:
    """Of channels, of images, and of none."""
    constant = np.abs(random(*shape)) + np.float32(0.5)
    body = PAIRS.get(name, f"b = {name}(a, c)")
    (group,) = check_exact(between(body, **NUMBERS, c=constant), (0.5,))
    assert group.size == 8
    assert any(slot.value.name == "c" for slot in group.slots) == (8 in shape)


@pytest.mark.parametrize("name", ["Add", "Mul", "Max", "PRelu", "Sub"])
def test_two_operands_go_together(name: str) -> None:
    body = f"d = Conv(x, k) e = Relu(d) b = {name}(a, e)"
    (group,) = check_exact(between(body, k=random(8, 3, 1, 1)))
    assert [place.node.op_type for place in group.makers] == ["Conv", "Conv"]
    assert group.size == 8


def test_a_constant_without_labels_of_a_channel_keeps_it() -> None:
    """What stays has no partner: the image itself."""
    text = "agraph (float[2,3,6,6] x, float[2,8,6,6] s) => (float[2,4,6,6] y) { a = Conv(x, w) b = Add(a, s) y = Conv(b, v) }"
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1))))
    assert not found.groups
    assert found.whole[0].reason == "Add 'Add_0' combines it with what stays"


def test_an_image_of_one_channel_joins_nothing() -> None:
    text = "agraph (float[2,3,6,6] x, float[2,1,6,6] s) => (float[2,4,6,6] y) { a = Conv(x, w) b = Mul(a, s) y = Conv(b, v) }"
    model = ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1)))
    assert [group.size for group in check_exact(model)] == [8]


def test_a_mask_of_dropout_has_channels_too() -> None:
    text = "agraph (float[2,3,6,6] x) => (float[2,4,6,6] y, bool[2,8,6,6] m) { a = Conv(x, w) b, m = Dropout(a) y = Conv(b, v) }"
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1), v=random(4, 8, 1, 1))))
    assert [each.reason for each in found.whole] == ["it is the output 'm'", "it is the output 'y'"]


def test_values_of_unknown_rank_stay() -> None:
    text = (
        "agraph (float[2,3,6,6] x) => (float y) { a = Conv(x, w) t = com.microsoft.Mystery(x) y = Add(a, t) }"
    )
    found = find_groups(ready(make_model(text, w=random(8, 3, 1, 1))))
    assert [each.reason for each in found.whole] == ["the rank of 'y' is not known"]
