"""Operators that move elements next to ONNX Runtime."""

import numpy as np
import onnx
import pytest

from tests.training.executor.harness import Case, case, check, floats, ints, scalar

LAST = 2**63 - 1

CASES = [
    case("Reshape", floats(2, 3, 4), ints(0, -1)),
    case("Reshape", floats(2, 3, 4), ints(4, 0, 2)),
    case("Reshape", floats(0, 3), ints(3, 0), allowzero=1),
    *(case("Flatten", floats(2, 3, 4), axis=axis) for axis in (0, 1, 3, -1)),
    case("Flatten", floats(0, 3, 4)),
    case("Transpose", floats(2, 3, 4)),
    case("Transpose", floats(2, 3, 4), perm=[1, 2, 0]),
    case("Squeeze", floats(1, 3, 1)),
    case("Squeeze", floats(1, 3, 1), ints(-1)),
    case("Squeeze", floats(1, 3, 1), opset=11, axes=[0]),
    case("Unsqueeze", floats(3, 4), ints(3, 0)),
    case("Unsqueeze", floats(3, 4), ints(-1, 1)),
    case("Unsqueeze", floats(3, 4), opset=11, axes=[0, 3]),
    case("Concat", floats(2, 3), floats(2, 1), axis=-1),
    case("Split", floats(2, 7), ints(3, 4), outputs=2, axis=1),
    case("Split", floats(7, 2), outputs=3, num_outputs=3),
    case("Split", floats(2, 6), opset=11, outputs=2, axis=1, split=[2, 4]),
    case("Split", floats(2, 6), opset=13, outputs=3, axis=-1),
    case("Expand", floats(3, 1), ints(2, 1, 4)),
    case("Expand", floats(3, 4), ints(1)),
    case("Tile", floats(2, 3), ints(2, 3)),
    case("Slice", floats(5, 7), ints(1, -3), ints(4, LAST)),
    case("Slice", floats(5, 7), ints(-2), ints(0), ints(1), ints(-2)),
    case("Slice", floats(5, 7), ints(LAST), ints(-LAST), ints(0), ints(-1)),
    case("Slice", floats(5, 7), ints(4), ints(-6), ints(0), ints(-1)),
    case("Slice", floats(5, 7), ints(3), ints(3)),
    case("Slice", floats(5, 7), ints(0), ints(100), ints(-1), ints(3)),
    case("Slice", floats(5, 7), opset=9, starts=[1], ends=[-1], axes=[1]),
    case("Pad", floats(2, 3), ints(1, 0, 0, 2)),
    case("Pad", floats(2, 3), ints(0, -1, 1, 0), scalar(7)),
    case("Pad", floats(2, 3, 4), ints(1, 2), scalar(1), ints(-1)),
    *(case("Pad", floats(3, 4), ints(2, 0, 1, 3), mode=mode) for mode in ("reflect", "edge")),
    case("Pad", floats(3, 4), ints(2, 0, 1, 3), mode="wrap"),
    case("Pad", floats(2, 3), opset=9, pads=[0, 1, 0, 1], value=2.0),
    case("DepthToSpace", floats(2, 8, 3, 5), blocksize=2),
    case("DepthToSpace", floats(2, 18, 1, 2), blocksize=3, mode="CRD"),
    case("SpaceToDepth", floats(1, 3, 4, 6), blocksize=2),
    case("Shape", floats(2, 3, 4)),
    case("Shape", floats(2, 3, 4), start=1, end=-1),
    case("Size", floats(2, 3)),
    case("ConstantOfShape", ints(2, 3)),
    case("ConstantOfShape", ints(2), value=onnx.numpy_helper.from_array(np.array([7]))),
    case("Range", scalar(1, np.int64), scalar(9, np.int64), scalar(3, np.int64)),
    case("Range", scalar(5.0), scalar(1.0), scalar(-1.5)),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)
