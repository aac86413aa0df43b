"""Reductions, softmax, normalisations and selections against ONNX Runtime: axes, layouts, awkward extents, epilogues."""

import numpy as np
import pytest

from tests.backends.lower.harness import Nodes, fixed

OPERATORS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
AXES = ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2])


def numbers(*shape: int, dtype: str = "float32", low: float = 0.5, high: float = 1.5) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 200), (17, 4, 33), (1, 1, 1)])
def test_every_operator_over_every_choice_of_axes(shape: tuple[int, ...]) -> None:
    model = Nodes(18)
    x = model.add("Identity", numbers(*shape))
    for i, op in enumerate(OPERATORS):
        axes = AXES[i % len(AXES)]
        model.add(f"Reduce{op}", x, fixed(np.array(axes)), keepdims=i % 2)
    for axes in AXES:
        model.add("ReduceSum", x, fixed(np.array(axes)), keepdims=0)
        model.add("ReduceLogSumExp", x, fixed(np.array(axes)), keepdims=1)
    model.check()


def test_transposed_input_and_epilogue() -> None:
    model = Nodes(18)
    turned = model.add("Transpose", numbers(6, 20, 35), perm=[2, 0, 1])
    for axes in ([0], [1], [2], [0, 1]):
        total = model.add("ReduceMean", turned, fixed(np.array(axes)), keepdims=1)
        model.add("Relu", model.add("Sub", total, fixed(np.float32(1))))
    model.check()


def test_other_types_and_old_opsets() -> None:
    model = Nodes(13)
    for dtype in ("int32", "int64", "float64"):
        x = numbers(3, 37, dtype=dtype, low=-9, high=9)
        model.add("ReduceSum", x, fixed(np.array([1])))
        model.add("ReduceMax", x, axes=[0])
        model.add("ReduceProd", x, axes=[0], keepdims=0)
    model.add("ReduceMean", numbers(4, 9), axes=[-1])
    model.add("ReduceSum", numbers(4, 9), fixed(np.array([], np.int64)), noop_with_empty_axes=1)
    model.check()


def test_log_sum_exp_does_not_overflow() -> None:
    model = Nodes(18)
    x = numbers(3, 40, low=-200, high=200)
    x[1] = -np.inf
    model.add("ReduceLogSumExp", x, fixed(np.array([1])))
    model.add("ReduceLogSumExp", x, fixed(np.array([0])))
    model.check()


def test_pooling_of_blocked_channels() -> None:
    model = Nodes(18)
    for channels in (16, 20, 37):
        y = model.add("Conv", numbers(1, 3, 9, 9), fixed(numbers(channels, 3, 3, 3)))
        model.add("GlobalAveragePool", y)
        y = model.add("Conv", numbers(2, 3, 9, 9), fixed(numbers(channels, 3, 3, 3)))
        model.add("Relu", model.add("GlobalMaxPool", y))
    model.check()


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(op: str) -> None:
    model = Nodes(13)
    for shape in ((5,), (3, 197), (2, 3, 16), (2, 7, 35), (1, 1), (2, 4100)):
        for axis in range(len(shape)):
            model.add(op, numbers(*shape, low=-4, high=4), axis=axis)
    model.add("Mul", model.add(op, numbers(3, 50, low=-90, high=90)), fixed(numbers(50)))
    model.check()
    old = Nodes(11)
    old.add(op, numbers(2, 3, 4), axis=1)
    old.add(op, numbers(2, 3, 4))
    old.check()


def test_layer_normalization() -> None:
    model = Nodes(17)
    for shape, axis in (((2, 5, 48), -1), ((3, 37), 1), ((2, 3, 5), 1), ((2, 5000), -1)):
        size = shape[axis:]
        model.add("LayerNormalization", numbers(*shape), numbers(*size), numbers(*size), axis=axis)
    y = model.add("LayerNormalization", numbers(4, 33), numbers(33), epsilon=1e-2)
    model.add("Mul", y, fixed(np.float32(3)))
    model.add("LayerNormalization", numbers(4, 33), numbers(33), numbers(33), outputs=3)
    model.check()


def test_normalisations_by_channel() -> None:
    model = Nodes(21)
    x = numbers(2, 6, 5, 7, low=-2, high=2)
    six = numbers(6)
    model.add("InstanceNormalization", x, six, six)
    model.add("GroupNormalization", x, six, six, num_groups=3)
    model.add("BatchNormalization", x, *map(fixed, (six, six, six, six)))
    model.add("BatchNormalization", x, six, six, six, six)
    model.add("BatchNormalization", x, six, six, six, six, outputs=3, training_mode=1)
    model.add("LRN", x, size=3, alpha=0.1, beta=0.6, bias=1.5)
    model.add("LpNormalization", x, axis=1, p=1)
    model.add("LpNormalization", x, axis=-1)
    model.check()


def test_local_response() -> None:
    model = Nodes(13)
    for beta in (0.25, 0.5, 0.6, 0.75, 1.0, 2.0):
        model.add("LRN", numbers(2, 16, 5, 7, low=-2, high=2), size=5, alpha=0.3, beta=beta, bias=1.5)
    for size, channels in ((1, 6), (3, 6), (5, 40), (21, 50), (35, 24)):
        y = model.add("LRN", numbers(1, channels, 3, 4, low=-2, high=2), size=size, alpha=0.9)
        model.add("Relu", y)
    model.check()


def test_selection() -> None:
    x = np.random.default_rng(3).integers(0, 9, (4, 6, 35)).astype(np.float32)
    model = Nodes(18)
    for axis in range(3):
        for op in ("ArgMax", "ArgMin"):
            model.add(op, x, axis=axis)
            model.add(op, x, axis=axis, keepdims=0, select_last_index=1)
        for largest in (0, 1):
            model.add("TopK", x, fixed(np.array([3])), axis=axis, largest=largest, outputs=2)
    model.add("TopK", x.astype(np.int64), fixed(np.array([35])), outputs=2)
    model.check()


def test_scans() -> None:
    x = numbers(3, 5, 20)
    model = Nodes(14)
    for axis in range(3):
        for reverse in (0, 1):
            for exclusive in (0, 1):
                model.add("CumSum", x, fixed(np.array(axis)), reverse=reverse, exclusive=exclusive)
    model.add("CumSum", np.arange(12), fixed(np.array(0, np.int32)))
    model.check()


def test_losses() -> None:
    rng = np.random.default_rng(0)
    scores, labels, weights = numbers(4, 5, 3), rng.integers(0, 5, (4, 3)), numbers(5)
    model = Nodes(13)
    for reduction in ("none", "sum", "mean"):
        for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
            model.add(op, scores, labels, weights, reduction=reduction)
            model.add(op, scores, labels, reduction=reduction, ignore_index=2)
    model.check()
