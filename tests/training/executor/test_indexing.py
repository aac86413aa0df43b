"""Gathers, scatters and searches next to ONNX Runtime."""

import numpy as np
import pytest

from tests.training.executor.harness import Case, case, check, floats, ints, scalar

TIED = np.array([[3, 1, 3, 2], [0, 0, 0, 1]], np.float32)

CASES = [
    case("Gather", floats(4, 3), ints(3, -1, 0)),
    case("Gather", floats(4, 3), np.array([[0, 1], [2, -3]], np.int32), axis=-1),
    case("Gather", floats(4, 3), scalar(2, np.int64), axis=1),
    case("GatherElements", floats(3, 4), ints([0, -1, 2, 1]), axis=0),
    case("GatherElements", floats(3, 4), ints([0], [-1], [3]), axis=1),
    case("GatherND", floats(3, 4, 2), ints([0, 1], [-1, 3])),
    case("GatherND", floats(3, 4, 2), ints([[1]], [[0]], [[-1]]), batch_dims=1),
    case("ScatterElements", floats(3, 4), ints([0, -1]), floats(1, 2), axis=1),
    case("ScatterElements", floats(3, 4), ints([1, 1]), floats(1, 2), axis=1, reduction="add"),
    case("ScatterElements", floats(3, 4), ints([1, 1]), floats(1, 2), axis=1, reduction="max"),
    case("ScatterND", floats(4, 3), ints([1], [-1]), floats(2, 3)),
    case("ScatterND", floats(4, 3), ints([1], [1]), floats(2, 3), reduction="add"),
    case("OneHot", ints(0, 2, -1, 7), scalar(3, np.int64), np.array([0.5, 2], np.float32)),
    case("OneHot", ints([0, 2]), scalar(3, np.int64), ints(0, 1), axis=0),
    case("Trilu", floats(3, 4)),
    case("Trilu", floats(2, 3, 4), scalar(-1, np.int64), upper=0),
    case("TopK", TIED, ints(3), outputs=2),
    case("TopK", TIED, ints(2), outputs=2, largest=0, axis=0),
    case("TopK", floats(9), opset=9, outputs=2, k=4),
    case("NonZero", np.array([[1, 0], [0, 2]], np.float32)),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)
