"""Elementwise operators against ONNX Runtime: dtypes, broadcasting, attributes by opset, special values."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, fixed

SPECIAL = np.array(
    [0, -0.0, 1, -1, 0.5, -2.5, 1.5, 2.5, -0.5, np.inf, -np.inf, np.nan, 7, -7, 1e-40, 3e38], np.float32
)
UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Celu",
    "Shrink",
]


def numbers(*shape: int, dtype: str = "float32", low: float = -3, high: float = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, shape).astype(dtype)


@np.errstate(all="ignore")
def test_unary_functions_over_floats() -> None:
    model = Nodes(18)
    for op in UNARY:
        model.add(
            op, numbers(3, 17, low=0.1, high=0.9) if op in ("Acos", "Asin", "Atanh") else numbers(3, 17)
        )
    for op in ("Acosh", "Log"):
        model.add(op, numbers(5, 7, low=1, high=9))
    model.check()


def test_special_values() -> None:
    model = Nodes(18)
    for op in (
        "Abs",
        "Ceil",
        "Exp",
        "Floor",
        "IsInf",
        "IsNaN",
        "Log",
        "Neg",
        "Round",
        "Sign",
        "Sqrt",
        "Tanh",
    ):
        model.add(op, SPECIAL.copy())
    model.add("IsInf", SPECIAL.copy(), detect_negative=0)
    model.add("IsInf", SPECIAL.copy(), detect_positive=0)
    model.add("Sub", model.add("Identity", SPECIAL.copy()), "Identity14_0")
    model.add("Mul", SPECIAL.copy(), fixed(np.float32(0)))
    model.add("Cast", SPECIAL.copy(), to=9)
    model.add("Not", model.add("Equal", SPECIAL.copy(), SPECIAL.copy()))
    model.add("Not", model.add("Less", SPECIAL.copy(), fixed(np.float32(0))))
    model.check()


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_arithmetic_broadcasts(dtype: str) -> None:
    model = Nodes(18)
    for op in ("Add", "Sub", "Mul", "Div"):
        model.add(
            op, numbers(3, 1, 19, dtype=dtype, low=-50, high=50), numbers(4, 1, dtype=dtype, low=1, high=9)
        )
    for op in ("Max", "Min", "Sum", "Mean") if dtype == "float32" else ("Max", "Min"):
        model.add(op, numbers(3, 5, dtype=dtype), numbers(5, dtype=dtype), numbers(1, dtype=dtype))
    for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
        model.add(op, numbers(33, dtype=dtype), numbers(3, 1, dtype=dtype))
    model.add(
        "Where", numbers(3, 1, dtype="int32") > 0, numbers(17, dtype=dtype), numbers(3, 17, dtype=dtype)
    )
    model.check()


def test_modulo() -> None:
    a = np.array([7, -7, 5, -5, 0, 6], np.int32)
    b = np.array([3, 3, -3, -3, 4, -6], np.int32)
    model = Nodes(18)
    for dtype in ("int8", "int32", "int64"):
        model.add("Mod", a.astype(dtype), b.astype(dtype))
        model.add("Mod", a.astype(dtype), b.astype(dtype), fmod=1)
    model.add("Mod", np.array([7, 200], np.uint8), np.array([3, 7], np.uint8))
    for dtype in ("float32", "float64"):
        big = np.array([7.5, -7.5, 1e6, -1e6, 0.3, 5], dtype)
        model.add("Mod", big, np.array([2, 2, 0.7, 0.7, 0.1, np.inf], dtype), fmod=1)
    model.check()


def test_powers() -> None:
    x = numbers(4, 9, low=0.1)
    model = Nodes(18)
    for exponent in (0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0, 7.0, 2.7):
        model.add("Pow", x, fixed(np.float32(exponent)))
    model.add("Pow", x, numbers(9))
    model.add("Pow", numbers(4, 9, dtype="int32"), np.arange(9, dtype=np.int32))
    model.add("Pow", x, np.arange(9, dtype=np.int64))
    model.check()


def test_logic_and_bits() -> None:
    p, q = np.arange(40).reshape(2, 20) % 2 == 0, np.arange(20) % 3 == 0
    n = np.arange(24, dtype=np.uint32)
    model = Nodes(18)
    for op in ("And", "Or", "Xor", "Equal"):
        model.add(op, p, q)
    model.add("Not", p)
    for direction in ("LEFT", "RIGHT"):
        model.add("BitShift", n * 7, n % 5, direction=direction)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        model.add(op, n * 7, n[::-1].copy())
    model.add("BitwiseNot", n.astype(np.int32))
    model.check()


@np.errstate(invalid="ignore")
def test_casts() -> None:
    names = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "uint32", "bool")
    codes = {
        "float32": 1,
        "uint8": 2,
        "int8": 3,
        "int16": 5,
        "int32": 6,
        "int64": 7,
        "bool": 9,
        "float16": 10,
    }
    codes |= {"float64": 11, "uint32": 12}
    model = Nodes(18)
    for source in names:
        low = 0 if source.startswith("u") else -100
        x = np.linspace(low, 100, 35).astype(source)
        for target in names:
            if not (target.startswith("u") and low < 0):
                model.add("Cast", x, to=codes[target])
    model.check()


def test_clip_at_every_opset() -> None:
    x = numbers(3, 11)
    for opset, bounds, attributes in (
        (6, (), {"min": -1.0, "max": 1.0}),
        (11, (np.float32(-1), np.float32(1)), {}),
    ):
        model = Nodes(opset)
        model.add("Clip", x, *map(fixed, bounds), **attributes)
        model.check()
    model = Nodes(13)
    model.add("Clip", x, None, fixed(np.float32(0.5)))
    model.add("Clip", x)
    model.add("Clip", numbers(9, dtype="int8", high=90), fixed(np.int8(2)), fixed(np.int8(50)))
    model.check()


def test_parameters_of_activations() -> None:
    x = numbers(2, 21)
    model = Nodes(20)
    model.add("PRelu", x, numbers(21))
    for op in ("Elu", "Celu", "LeakyRelu", "ThresholdedRelu"):
        model.add(op, x, alpha=0.7)
    model.add("Selu", x, alpha=2.0, gamma=1.5)
    model.add("HardSigmoid", x, alpha=0.3, beta=0.4)
    model.add("Shrink", x, bias=0.2, lambd=1.0)
    model.add("Gelu", x)
    model.add("Gelu", x, approximate="tanh")
    model.check()


def test_division_by_zero_does_not_trap() -> None:
    import onnx_ir as ir

    from graphopt import model as models
    from tests.backends.lower.harness import compiled

    low = np.iinfo(np.int32).min
    model = Nodes(18)
    model.add("Div", np.int32([7, -7, low]), np.int32([0, 0, -1]))
    model.add("Mod", np.int32([7, -7, low]), np.int32([0, 0, -1]))
    made = ir.from_proto(model.proto())
    models.normalise(made)
    quotient, rest = compiled(made, model.feeds)
    np.testing.assert_array_equal(quotient, [0, 0, low])
    np.testing.assert_array_equal(rest, [0, 0, 0])
