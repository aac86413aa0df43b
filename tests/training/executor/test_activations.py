"""Activation functions next to ONNX Runtime."""

import numpy as np
import pytest

from tests.training.executor.harness import Case, case, check, floats, scalar

CASES = [
    *(
        case(op, floats(4, 9) * 3)
        for op in ("Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu", "Sigmoid")
    ),
    *(case(op, floats(4, 9) * 3) for op in ("Softplus", "Softsign", "Tanh", "ThresholdedRelu", "Shrink")),
    *(case(op, floats(4, 9) * 3, alpha=0.3) for op in ("Celu", "Elu", "LeakyRelu", "ThresholdedRelu")),
    case("Selu", floats(9), alpha=2.0, gamma=0.5),
    case("HardSigmoid", floats(9), alpha=0.5, beta=0.1),
    case("Shrink", floats(20) * 2, lambd=1.0, bias=0.25),
    case("Gelu", floats(4, 9)),
    case("Gelu", floats(4, 9), approximate="tanh"),
    case("PRelu", floats(2, 3, 4), floats(3, 1)),
    case("Softplus", np.array([-200, -3, 0, 3, 200], np.float32)),
    case("Clip", floats(9), scalar(-0.5), scalar(0.5)),
    case("Clip", floats(9), None, scalar(0.5)),
    case("Clip", floats(9), scalar(0.5)),
    case("Clip", floats(9), scalar(1), scalar(-1)),
    case("Clip", floats(9)),
    case("Clip", floats(9), opset=6, min=-0.1, max=0.2),
    case("Clip", floats(9), opset=6, max=0.2),
    *(
        case(op, floats(2, 3, 4), opset=opset, **attributes)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (11, 13)
        for attributes in ({}, {"axis": 0}, {"axis": 1}, {"axis": -2})
    ),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)
