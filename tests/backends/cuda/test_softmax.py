"""Softmax along outer axes."""

import numpy as np
import pytest

from graphopt.backends.cuda import runs
from graphopt.backends.cuda.softmax import LONGEST
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import launches, random
from tests.backends.cuda.test_runs import READ, WRITE, half, text
from tests.backends.lower.harness import Nodes, fixed


@pytest.fixture(autouse=True)
def _runs_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are computed as large ones are."""
    monkeypatch.setattr(runs, "LEAST", 1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("extent", [1, 4, 16, LONGEST, LONGEST + 1])
def test_columns(gpu: Target, dtype: str, extent: int) -> None:
    nodes = Nodes()
    for shape in ((2, extent, 24), (3, extent, 7), (2, extent, 3, 8)):
        x = (random(*shape) * 5).astype(dtype)
        nodes.add("Mul", nodes.add("Softmax", x, axis=1), random(*shape, dtype=dtype))
        nodes.add("LogSoftmax", x, axis=1)
    nodes.check(gpu)


def test_views_and_images(gpu: Target) -> None:
    nodes = Nodes()
    wide = nodes.add("Reshape", random(2, 4, 16, 40), fixed(np.array([2, 4, 16, 40])))
    nodes.add("Softmax", nodes.add("Transpose", wide, perm=[0, 2, 1, 3]), axis=1)
    nodes.add("Softmax", nodes.add("Relu", random(2, 8, 24)), axis=1)
    images = nodes.add("Conv", half(1, 16, 6, 8), fixed(half(16, 1, 3, 3)), group=16, pads=[1, 1, 1, 1])
    nodes.add("Softmax", images, axis=1)
    nodes.add("Softmax", nodes.add("Pad", random(2, 6, 20), fixed(np.array([0, 1, 0, 0, 1, 4]))), axis=1)
    nodes.check(gpu)


def column_model(extent: int) -> Nodes:
    nodes = Nodes()
    moved = nodes.add("Transpose", random(2, 4, extent, 64), perm=[0, 2, 1, 3])
    nodes.add("Softmax", moved, axis=1)
    return nodes


def test_elements_of_short_columns_are_read_once_where_they_lie() -> None:
    made = text(column_model(8))
    assert len(launches(column_model(8))) == 1
    assert (made.count(READ), made.count(WRITE)) == (8, 8)


def test_long_columns_are_moved_first() -> None:
    assert [name for name, *_ in launches(column_model(LONGEST + 1))] == ["copy", "softmax"]
