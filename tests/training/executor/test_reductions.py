"""Reductions and running sums next to ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

from tests.training.executor.harness import Case, case, check, floats, ints, positive, scalar

NAMES = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip
TIED = np.array([[3, 1, 3, 2], [0, 0, 0, 1]], np.float32)


@pytest.mark.parametrize("attributes", [{}, {"keepdims": 0}, {"noop_with_empty_axes": 1}], ids=str)
@pytest.mark.parametrize("axes", [None, ints(1), ints(-1, 0)], ids=str)
@pytest.mark.parametrize("op", NAMES)
def test_reductions(op: str, axes: np.ndarray | None, attributes: dict[str, Any]) -> None:
    check(case(op, positive(2, 3, 4), *([] if axes is None else [axes]), **attributes))


CASES = [
    case("ReduceMean", floats(2, 3, 4), opset=13, axes=[-1], keepdims=0),
    case("ReduceSum", floats(2, 3, 4), opset=11, axes=[0, 2]),
    case("ReduceSum", np.array([[1, 2], [3, 4]]), ints(0)),
    case("ReduceMax", np.array([[1, 2], [3, 4]])),
    *(case(op, TIED, **how) for op in ("ArgMax", "ArgMin") for how in ({}, {"axis": 1, "keepdims": 0})),
    *(case(op, TIED, axis=-1, select_last_index=1) for op in ("ArgMax", "ArgMin")),
    *(
        case("CumSum", floats(3, 4), scalar(-1, np.int64), exclusive=exclusive, reverse=reverse)
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_other_cases(each: Case) -> None:
    check(each)
