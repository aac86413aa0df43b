"""Runs of neighbouring elements: results on awkward shapes, and which accesses they come with."""

import math
import re
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.cuda import columns, pixels, reduce, runs
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.source import cuda_source
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import launches, random
from tests.backends.lower.harness import Nodes, fixed

READ, WRITE = "graphopt_read16((", "graphopt_write16(("


@pytest.fixture(autouse=True)
def _runs_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are computed as large ones are."""
    monkeypatch.setattr(runs, "LEAST", 1)


def half(*shape: int) -> np.ndarray:
    return random(*shape, dtype="float16")


def text(nodes: Nodes) -> str:
    """The kernels without the functions that they call."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, CORE, machine=GPU)])
    source = cuda_source(functions, "sm_90")
    return source[source.index('extern "C" __global__') :]


def model_of(op: str, *inputs: np.ndarray, **attributes: object) -> Nodes:
    nodes = Nodes()
    nodes.add(op, *inputs, **attributes)
    return nodes


SHAPES = [(8,), (1, 24), (3, 5, 8), (3, 5, 7), (2, 4, 7, 6), (2, 3, 4), (5, 16), (3, 1, 8)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_elements_of_all_shapes(gpu: Target, dtype: str) -> None:
    nodes = Nodes()
    for shape in SHAPES:
        x, y = ((random(*shape) * scale).astype(dtype) for scale in (50, 30))
        total = nodes.add("Add", x, y)
        nodes.add("Mul", total, (random(shape[-1]) * 9).astype(dtype))
        if len(shape) > 1:
            nodes.add("Mul", total, (random(*shape[1:-1], 1) * 9).astype(dtype))
    nodes.check(gpu)


def test_elements_of_several_types(gpu: Target) -> None:
    nodes = Nodes()
    for shape in ((3, 5, 8), (5, 6)):
        x, y = random(*shape), random(*shape, dtype="float16")
        nodes.add("Greater", y, y[::-1])
        nodes.add("Where", x > 0, x, x[::-1])
        nodes.add("Cast", y, to=onnx.TensorProto.FLOAT)
        nodes.add("Cast", x, to=onnx.TensorProto.FLOAT16)
        nodes.add("Add", (x * 9).astype("int64"), (x * 5).astype("int64"))
    nodes.check(gpu)


def test_places_are_not_looked_up_where_nothing_is(gpu: Target) -> None:
    nodes = Nodes()
    gathered = nodes.add("Gather", half(100, 64), np.arange(20, dtype=np.int64), axis=0)
    nodes.add("Pad", gathered, fixed(np.array([2, 0, 2, 0])))
    assert "_where(" not in text(nodes)
    nodes.check(gpu)


@pytest.mark.parametrize("extent", [7, 40])
def test_places_that_do_not_exist(gpu: Target, extent: int) -> None:
    nodes = Nodes()
    x = half(2, 3, 5, extent)
    for pads in (
        (0, 0, 1, 0, 0, 0, 2, 0),
        (0, 0, 0, 8, 0, 0, 0, 8),
        (0, 0, 0, 1, 0, 0, 0, 2),
        (1, 0, 0, 0, 0, 2, 0, 3),
    ):
        nodes.add("Pad", x, fixed(np.array(pads)), fixed(np.array(3, np.float16)))
    nodes.add("Pad", x, fixed(np.array([0, 0, 0, 2, 0, 0, 0, 3])), mode="reflect")
    nodes.check(gpu)


def test_parts_and_wholes(gpu: Target) -> None:
    nodes = Nodes()
    for left, right in ((8, 16), (8, 4), (3, 5), (16, 8)):
        nodes.add("Concat", half(3, 4, left), half(3, 4, right), axis=2)
    x = half(6, 40)
    for start, end, step in ((8, 40, 1), (3, 35, 1), (0, 40, 2), (-1, -100, -1)):
        nodes.add("Slice", x, *(fixed(np.array([each])) for each in (start, end, 1, step)))
    nodes.add("Gather", x, fixed(np.array([3, 1, 5, 1])), axis=0)
    nodes.add("Gather", x, fixed(np.array([3, 1, 5, 1, 2, 3, 4, 9])), axis=1)
    nodes.add("Expand", half(6, 1), fixed(np.array([2, 6, 8])))
    nodes.add("Tile", half(3, 8), fixed(np.array([2, 3])))
    nodes.check(gpu)


@pytest.mark.parametrize("shape", [(2, 8, 4, 8), (1, 40, 6, 36), (2, 3, 8, 33)])
def test_transposed(gpu: Target, shape: Sequence[int]) -> None:
    nodes = Nodes()
    for order in ((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (0, 2, 1, 3)):
        nodes.add("Transpose", random(*shape), perm=order)
        moved = nodes.add("Transpose", half(*shape), perm=order)
        nodes.add("Add", nodes.add("Relu", moved), half(*(shape[axis] for axis in order)))
    nodes.check(gpu)


@pytest.mark.parametrize("enough", [1, pixels.ENOUGH])
def test_windows_of_channels_that_are_neighbours(
    gpu: Target, monkeypatch: pytest.MonkeyPatch, enough: int
) -> None:
    """With and without pixels that share a thread."""
    monkeypatch.setattr(pixels, "ENOUGH", enough)
    nodes = Nodes()
    for channels, size in ((16, 9), (24, 8)):
        x = half(2, channels, size, size)
        weights = fixed(half(channels, 1, 3, 3))
        blocked = nodes.add("Conv", x, weights, fixed(half(channels)), group=channels, pads=[1, 1, 1, 1])
        nodes.add("Conv", blocked, weights, group=channels, strides=[2, 2], pads=[0, 1, 1, 0])
        nodes.add("MaxPool", blocked, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        nodes.add("AveragePool", blocked, kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2])
        nodes.add("GlobalAveragePool", blocked)
        nodes.add("GlobalMaxPool", blocked)
    nodes.add("Conv", half(2, 3, 9, 9), fixed(half(8, 3, 3, 3)))
    nodes.check(gpu)


@pytest.mark.parametrize("few", [1, 1 << 20])
def test_columns(gpu: Target, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """By a thread for each run, and by teams."""
    monkeypatch.setattr(reduce, "FEW", few)
    monkeypatch.setattr(reduce, "MULTIPROCESSORS", 1)
    nodes = Nodes()
    for shape in ((40, 64), (9, 33), (3, 50, 72), (2, 17, 256)):
        axes = fixed(np.array([len(shape) - 2]))
        for dtype in ("float16", "float32"):
            nodes.add("ReduceSum", random(*shape, dtype=dtype), axes)
        nodes.add("ReduceMax", (random(*shape) * 99).astype("int32"), axes)
        nodes.add("ReduceLogSumExp", random(*shape), axes)
    nodes.check(gpu)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_columns_in_parts(gpu: Target, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Parts of as many rows, a shorter last one, and rows that are read one at a time."""
    monkeypatch.setattr(reduce, "LARGE", 1)
    for name, value in (("TEAMS", 12), ("LEAST_ROWS", 2)):
        monkeypatch.setattr(columns, name, value)
    nodes = Nodes()
    for shape in ((256, 256), (160, 33), (3, 101, 72)):
        for op in ("ReduceSum", "ReduceMean", "ReduceMax"):
            nodes.add(op, random(*shape, dtype=dtype), fixed(np.array([len(shape) - 2])))
    nodes.check(gpu)


def test_columns_of_large_tensors_are_folded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    shapes = {rows: random(rows, 512) for rows in (4096, 64)}
    many, few = (launches(model_of("ReduceSum", x, fixed(np.array([0])))) for x in shapes.values())
    assert len(many) == 2
    assert len(few) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_in_registers(gpu: Target, dtype: str) -> None:
    nodes = Nodes()
    for rows, extent in ((3, 64), (1027, 32), (5, 768), (2, 1000), (3, 1028), (2, 4096), (2, 8200)):
        x = (random(rows, extent) * 5).astype(dtype)
        nodes.add("Softmax", x)
        nodes.add("ReduceMean", x, fixed(np.array([1])))
        if extent in (64, 768, 1000):
            parameters = [fixed(random(extent, dtype=dtype)) for _ in range(2)]
            nodes.add("LayerNormalization", x, *parameters)
    nodes.check(gpu)


def test_rows_that_are_too_long_for_registers(gpu: Target) -> None:
    nodes = Nodes()
    for extent in (16640, 17001):
        nodes.add("Softmax", random(2, extent))
        nodes.add("ReduceSum", random(2, extent), fixed(np.array([1])))
    nodes.check(gpu)


def test_short_rows_share_a_block_where_they_are_many() -> None:
    """Two rows of 64 a warp."""
    blocks = [launches(model_of("Softmax", random(rows, 64)))[0] for rows in (20481, 4097, 100)]
    assert blocks == [("softmax", 1281, 256), ("softmax", 513, 128), ("softmax", 50, 32)]


WHOLE = [
    pytest.param(model_of("Add", half(3, 16), half(3, 16)), 2, id="both operands"),
    pytest.param(model_of("Add", half(3, 16), half(16)), 2, id="a row for all"),
    pytest.param(model_of("Add", half(3, 16), half(3, 1)), 1, id="one for a row"),
    pytest.param(model_of("Add", half(4, 6, 2), half(4, 6, 2)), 2, id="runs over several axes"),
    pytest.param(
        model_of("Slice", half(6, 40), *(fixed(np.array([each])) for each in (8, 40, 1))), 1, id="a part"
    ),
    pytest.param(model_of("Transpose", half(3, 4, 16), perm=[1, 0, 2]), 1, id="of other axes"),
]


@pytest.mark.parametrize(("nodes", "reads"), WHOLE)
def test_neighbours_come_with_one_access(nodes: Nodes, reads: int) -> None:
    made = text(nodes)
    assert made.count(READ) == reads
    assert made.count(WRITE) == 1


def test_padding_of_other_axes_is_a_condition_of_whole_accesses() -> None:
    pads = fixed(np.array([1, 0, 1, 0]))
    made = text(model_of("Pad", half(3, 16), pads))
    assert made.count("graphopt_read16_where((") == 1
    assert made.count(WRITE) == 1


ONE_BY_ONE = [
    pytest.param(
        model_of("Slice", half(6, 40), *(fixed(np.array([each])) for each in (3, 35, 1))), id="begins between"
    ),
    pytest.param(
        model_of("Slice", half(6, 41), *(fixed(np.array([each])) for each in (0, 40, 1))), id="odd rows"
    ),
    pytest.param(
        model_of("Slice", half(6, 40), *(fixed(np.array([each])) for each in (0, 32, 1, 2))),
        id="every second",
    ),
    pytest.param(model_of("Pad", half(3, 16), fixed(np.array([0, 4, 0, 4]))), id="other lanes exist"),
    pytest.param(model_of("Transpose", half(16, 8), perm=[1, 0]), id="transposed"),
    pytest.param(model_of("Gather", half(6, 8), np.array([5, 1] * 4), axis=1), id="gathered"),
]


@pytest.mark.parametrize("nodes", ONE_BY_ONE)
def test_others_are_read_one_by_one(nodes: Nodes) -> None:
    made = text(nodes)
    source = re.search(r"half\* __restrict__ (\w+)", made)
    assert source is not None
    assert re.search(rf"(?<!&\(){source[1]}\[", made)


@pytest.mark.parametrize("shape", [(3, 7), (5,), (1, 1)])
def test_odd_extents_have_a_thread_for_each_element(shape: tuple[int, ...]) -> None:
    nodes = model_of("Relu", half(*shape))
    assert "graphopt_write" not in text(nodes)
    ((_, blocks, threads),) = launches(nodes)
    assert blocks * threads >= math.prod(shape)


def test_extents_of_half_runs_have_shorter_ones() -> None:
    assert "graphopt_write8((" in text(model_of("Relu", half(3, 12)))
    assert "graphopt_write4((" in text(model_of("Relu", half(3, 6)))


def test_few_elements_have_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "graphopt_write" not in text(model_of("Relu", half(8, 64)))


def test_neighbouring_threads_read_neighbours_of_some_operands() -> None:
    """32 places of 8 runs a tile, so that 8 x 32 threads have the places of a tile next to each other."""
    nodes = Nodes()
    nodes.add("Add", nodes.add("Transpose", half(2, 64, 8, 8), perm=[0, 2, 3, 1]), half(2, 8, 8, 64))
    made = text(nodes)
    assert made.count(WRITE) == 1
    assert made.count("p0[") == 8
    ((_, blocks, threads),) = launches(nodes)
    assert blocks * threads == 2 * 8 * 64
