"""Elementwise arithmetic next to ONNX Runtime."""

import numpy as np
import pytest

from tests.training.executor.harness import Case, case, check, floats, positive, scalar

WITHIN_ONE = np.linspace(-0.99, 0.99, 31, dtype=np.float32)

CASES = [
    *(
        case(op, floats(3, 7))
        for op in ("Abs", "Atan", "Asinh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Neg", "Reciprocal")
    ),
    *(case(op, floats(3, 7)) for op in ("Sign", "Sin", "Sinh", "Tan")),
    *(case(op, WITHIN_ONE) for op in ("Acos", "Asin", "Atanh")),
    *(case(op, positive(5, 3)) for op in ("Log", "Sqrt")),
    case("Acosh", positive(9) + 1),
    case("Round", np.arange(-9, 10, dtype=np.float32) / 2),
    case("Abs", np.array([-3, 0, 4])),
    *(case(op, floats(2, 1, 5), floats(3, 1)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, np.array([-7, 7, 9]), np.array([2, -2, 3])) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, floats(2, 5), floats(5), floats(2, 1)) for op in ("Max", "Min", "Sum", "Mean")),
    *(case(op, floats(4)) for op in ("Max", "Min", "Sum", "Mean")),
    case("Mod", np.array([-7, 7, -7, 7]), np.array([3, 3, -3, -3])),
    case("Mod", np.array([-7, 7, -7, 7]), np.array([3, 3, -3, -3]), fmod=1),
    case("Mod", floats(9) * 5, positive(9), fmod=1),
    case("Pow", positive(4, 3), floats(3)),
    case("Pow", floats(4, 3), scalar(2)),
    case("Pow", floats(4, 3), scalar(3, np.int64)),
    case("Pow", np.array([2, 3]), scalar(2.0)),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)
