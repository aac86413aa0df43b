"""Comparisons, conditions and conversions next to ONNX Runtime."""

import numpy as np
import pytest
from onnx import TensorProto

from tests.training.executor.harness import Case, case, check, floats, scalar

LEFT, RIGHT = np.array([1, 2, 3, 3], np.float32), np.array([3, 2, 1, 3], np.float32)
TRUE_FIRST, MIXED = np.array([True, True, False, False]), np.array([True, False, True, False])
ODD = np.array([np.nan, np.inf, -np.inf, 1], np.float32)

CASES = [
    *(case(op, LEFT, RIGHT) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(case(op, TRUE_FIRST, MIXED) for op in ("And", "Or", "Xor")),
    case("Not", MIXED),
    case("IsNaN", ODD),
    case("IsInf", ODD),
    case("IsInf", ODD, detect_negative=0),
    case("IsInf", ODD, detect_positive=0),
    case("Where", MIXED[:, None], LEFT, scalar(9)),
    case("Cast", np.array([-1.9, 1.9, 200], np.float32), to=TensorProto.INT32),
    case("Cast", MIXED, to=TensorProto.FLOAT),
    case("Cast", LEFT, to=TensorProto.DOUBLE),
    case("Cast", floats(5), to=TensorProto.FLOAT16),
    case("Cast", floats(5), to=TensorProto.BOOL),
    case("CastLike", LEFT, np.array([1])),
    case("Identity", LEFT),
    case("Dropout", LEFT),
    case("Dropout", LEFT, scalar(0.5), outputs=2),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)
