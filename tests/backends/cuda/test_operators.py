"""Kernels of GPUs next to ONNX Runtime, on awkward shapes."""

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import Target
from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, fixed


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(math.prod(shape))
    return rng.uniform(-1, 1, shape).astype(dtype)


def launches(nodes: Nodes) -> list[tuple[str, int, int]]:
    """Kernel, blocks and threads of every launch."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    kernels = lower_model(model, CORE, machine=GPU).kernels()
    assert all(kernel.launch is not None for kernel in kernels)
    return [(k.name, k.launch.blocks, k.launch.threads) for k in kernels if k.launch is not None]


def test_products(gpu: Target) -> None:
    nodes = Nodes()
    for rows, depth, columns in (
        (1, 1, 1),
        (1, 300, 10),
        (5, 7, 3),
        (33, 65, 129),
        (130, 40, 200),
        (17, 4, 1),
    ):
        nodes.add("MatMul", random(rows, depth), random(depth, columns))
    nodes.add("MatMul", random(3, 2, 9, 20), random(2, 20, 11))
    nodes.add("MatMul", random(3, 0), random(0, 4))
    nodes.add("MatMul", random(4, 31), random(31))
    nodes.add("MatMul", random(13), random(3, 13, 5))
    nodes.add(
        "Gemm", random(20, 6), fixed(random(30, 20)), random(30), transA=1, transB=1, alpha=0.5, beta=2.0
    )
    nodes.check(gpu)


def test_products_of_other_types(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("MatMul", random(5, 40, dtype="float64"), random(40, 6, dtype="float64"))
    nodes.add(
        "MatMul", np.arange(35, dtype="int32").reshape(5, 7), np.arange(21, dtype="int32").reshape(7, 3)
    )
    nodes.check(gpu)


def test_nothing_comes_of_empty_tensors(gpu: Target) -> None:
    nodes = Nodes()
    empty = random(4, 0, 8)
    nodes.add("Relu", empty)
    nodes.add("Transpose", empty, perm=[2, 0, 1])
    nodes.add("Softmax", empty)
    nodes.add("Concat", empty, empty, axis=2)
    nodes.check(gpu)


def test_deep_products_are_cut_into_parts_and_take_an_epilogue(gpu: Target) -> None:
    nodes = Nodes()
    product = nodes.add("MatMul", random(3, 3000), fixed(random(3000, 70)))
    biased = nodes.add("Add", product, fixed(random(70)))
    nodes.add("Relu", biased)
    assert [name for name, *_ in launches(nodes)] == ["gemm", "gemm"]
    nodes.check(gpu)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(gpu: Target, groups: int) -> None:
    nodes = Nodes()
    weights, bias = fixed(random(12, 6 // groups, 3, 3)), fixed(random(12))
    for size in ((7, 5), (1, 1), (13, 32)):
        nodes.add("Conv", random(2, 6, *size), weights, bias, group=groups, pads=[1, 1, 1, 1])
    attributes = {"pads": [2, 0, 1, 3], "strides": [2, 3], "dilations": [1, 2]}
    nodes.add("Conv", random(1, 6, 12, 17), weights, group=groups, **attributes)
    nodes.check(gpu)


def test_convolutions_of_other_ranks_and_weights_of_run_time(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("Conv", random(2, 3, 19), random(8, 3, 4), random(8), pads=[3, 1])
    nodes.add("Conv", random(1, 2, 5, 6, 7), fixed(random(9, 2, 2, 3, 3)), pads=[1, 1, 1, 0, 1, 1])
    nodes.add("Conv", random(1, 130, 6, 6), fixed(random(40, 130, 1, 1)))
    nodes.add(
        "ConvTranspose", random(1, 5, 4, 6), fixed(random(5, 7, 3, 3)), fixed(random(7)), strides=[2, 3]
    )
    nodes.add("ConvTranspose", random(1, 4, 5), random(4, 3, 2), group=2)
    nodes.check(gpu)


def test_a_convolution_takes_what_follows(gpu: Target) -> None:
    nodes = Nodes()
    x = random(1, 8, 9, 9)
    first = nodes.add("Conv", x, fixed(random(16, 8, 3, 3)), pads=[1, 1, 1, 1])
    clipped = nodes.add("Clip", first, fixed(np.float32(0)), fixed(np.float32(6)))
    second = nodes.add("Conv", clipped, fixed(random(16, 16, 1, 1)))
    nodes.add("Add", second, random(1, 16, 9, 9))
    assert {name for name, *_ in launches(nodes)} == {"conv"}
    nodes.check(gpu)


def test_concatenated_convolutions_copy_nothing(gpu: Target) -> None:
    nodes = Nodes()
    x = random(1, 8, 6, 6)
    parts = [nodes.add("Conv", x, fixed(random(count, 8, 1, 1))) for count in (5, 9)]
    joined = nodes.add("Concat", *parts, axis=1)
    nodes.add("Conv", joined, fixed(random(6, 14, 3, 3)))
    assert {name for name, *_ in launches(nodes)} == {"conv"}
    nodes.check(gpu)


def test_elementwise(gpu: Target) -> None:
    nodes = Nodes()
    x = random(3, 5, 7)
    for op in ("Exp", "Tanh", "Sigmoid", "Erf", "Relu", "Neg", "Abs", "Sqrt", "Log"):
        nodes.add(op, np.abs(x) + np.float32(0.1))
    nodes.add("Mul", x, random(5, 1))
    nodes.add("Where", x > 0, x, random(7))
    nodes.add("Div", np.arange(-9, 9), np.full(18, 4, np.int64))
    nodes.add("Transpose", x, perm=[2, 0, 1])
    nodes.add("Cast", x * 100, to=onnx.TensorProto.INT8)
    nodes.add("Add", random(1), random(0, 1))
    nodes.check(gpu)


def test_nan_passes_through_extremes(gpu: Target) -> None:
    nodes = Nodes()
    x = np.array([np.nan, -1, 2, np.inf, -np.inf], np.float32)
    nodes.add("Relu", x)
    nodes.add("Max", x, np.zeros(5, np.float32))
    nodes.add("Min", x, np.zeros(5, np.float32))
    nodes.add("ReduceMax", x)
    nodes.check(gpu)


@pytest.mark.parametrize("extent", [1, 5, 32, 33, 700, 5000])
def test_rows(gpu: Target, extent: int) -> None:
    nodes = Nodes()
    x = random(3, extent) * 5
    nodes.add("Softmax", x)
    nodes.add("LogSoftmax", x)
    nodes.add("LayerNormalization", x, fixed(random(extent)), fixed(random(extent)))
    nodes.add("Softmax", random(2, extent, 3), axis=1)
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"):
        nodes.add(op, x, fixed(np.array([1])))
        nodes.add(op, x, fixed(np.array([0])), keepdims=0)
    nodes.check(gpu)


def test_reductions_of_other_types(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("ReduceSum", np.arange(700).reshape(7, 100), fixed(np.array([1])))
    nodes.add("ReduceMin", random(3, 90, dtype="float64"))
    nodes.add("ReduceMax", random(4, 50) > 0.9, fixed(np.array([1])))
    nodes.add("ReduceSum", random(2, 0, 3), fixed(np.array([1])))
    nodes.check(gpu)


def test_pooling(gpu: Target) -> None:
    nodes = Nodes()
    x = random(2, 3, 9, 11)
    nodes.add("MaxPool", x, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    nodes.add("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    nodes.add("AveragePool", x, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
    nodes.add("GlobalAveragePool", x)
    nodes.add("LRN", x, size=3)
    nodes.add("MaxPool", random(1, 2, 17), kernel_shape=[4])
    nodes.check(gpu)


def test_kernels_of_cpus_run_too(gpu: Target) -> None:
    nodes = Nodes()
    x = random(4, 9)
    nodes.add("CumSum", x, fixed(np.array(1)))
    nodes.add("TopK", x, fixed(np.array([3])), outputs=2)
    nodes.add("ArgMax", x, axis=1)
    nodes.add("Det", random(3, 3))
    nodes.add(
        "LSTM", random(5, 2, 3), fixed(random(1, 16, 3)), fixed(random(1, 16, 4)), outputs=2, hidden_size=4
    )
    nodes.check(gpu)


def test_a_loop_is_refused() -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["go"], ["on"]), onnx.helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [3]),
        ],
        [
            onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [3]),
        ],
    )
    nodes = Nodes()
    nodes.add("Loop", np.array(2), np.array(True), random(3), body=body)
    with pytest.raises(UnsupportedError, match="not supported on GPUs yet"):
        lower_model(ir.from_proto(nodes.proto()), CORE, machine=GPU)


def test_products_of_halves_run_on_tensor_cores(gpu: Target) -> None:
    nodes = Nodes()
    for rows, depth, columns in ((16, 16, 8), (130, 72, 200), (9, 8, 64)):
        nodes.add("MatMul", random(rows, depth, dtype="float16"), random(depth, columns, dtype="float16"))
    left, right = random(2, 20, 48, dtype="float16"), random(2, 30, 48, dtype="float16")
    transposed = nodes.add("Transpose", right, perm=[0, 2, 1])
    nodes.add("Relu", nodes.add("MatMul", left, transposed))
    assert {threads for name, _, threads in launches(nodes) if name == "gemm"} == {128}
    nodes.check(gpu)


def test_other_products_of_halves(gpu: Target) -> None:
    nodes = Nodes()
    for rows, depth, columns in ((3, 16, 8), (20, 15, 24), (20, 16, 1)):
        nodes.add("MatMul", random(rows, depth, dtype="float16"), random(depth, columns, dtype="float16"))
    nodes.check(gpu)
