"""Validation refuses models that break the specification and says where."""

import onnx
import onnx_ir as ir
import pytest

from graphopt.errors import ModelError
from graphopt.model import validate
from tests.conftest import make_model


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Neg(missing)", "reads 'missing'"),
        ("z = Neg(x)", "'y'"),
        ("y = NoSuchOperator(x)", "NoSuchOperator"),
        ("y = Conv(x)", "Conv"),
        ("y = Cast(x)", "to"),
    ],
)
def test_invalid_models_are_refused(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        validate(make_model(f"agraph (float[2] x) => (float[2] y) {{ {body} }}"))


def test_a_graph_without_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match="no outputs"):
        validate(make_model("agraph (float[2] x) => () { y = Neg(x) }"))


def test_an_output_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="listed twice"):
        validate(make_model("agraph (float[2] x) => (float[2] y, float[2] y) { y = Neg(x) }"))


def test_valid_models_and_custom_operators_pass() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18, "custom": 1]>\n'
        "agraph (float[2] x) => (float[2] y) { a = custom.Twist(x) y = Neg(a) }"
    )
    validate(ir.from_proto(proto))
