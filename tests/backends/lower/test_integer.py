"""Convolutions and products of integers against ONNX Runtime: equal to the last bit."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.schedules import byte_conv
from graphopt.backends.schedules.choice import Measured, Recorder
from graphopt.backends.targets import TARGETS, Target, native
from graphopt.model import normalise
from tests.backends.lower.harness import Nodes, assert_same, compiled, fixed
from tests.conftest import reference

RNG = np.random.default_rng(4)


def integers(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


GEOMETRIES = {
    "padded": ((1, 3, 9, 10), (20, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "pointwise": ((2, 19, 5, 7), (33, 19, 1, 1), {}),
    "depthwise": ((1, 24, 8, 8), (24, 1, 3, 3), {"group": 24, "pads": [1, 1, 1, 1]}),
    "blocks of channels": ((1, 80, 7, 9), (48, 80, 3, 3), {"pads": [1, 0, 2, 1]}),
    "whole blocks a group": ((1, 64, 5, 5), (32, 32, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "few pixels a row": ((1, 20, 7, 3), (24, 20, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((1, 12, 15, 14), (28, 12, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "far apart": ((1, 8, 5, 41), (8, 8, 1, 1), {"strides": [1, 5]}),
    "dilated": ((2, 36, 9, 9), (16, 36, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "aligned groups": ((1, 8, 6, 6), (32, 4, 3, 3), {"group": 2}),
    "ragged groups": ((1, 6, 6, 6), (9, 2, 3, 3), {"group": 3, "dilations": [2, 1]}),
    "row": ((1, 3, 20), (5, 3, 3), {"pads": [1, 0]}),
}


TARGET_NAMES = [
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v3-vnni",
    "x86-64-v4",
    "x86-64-v4-vnni",
    "aarch64:neoverse-n1",
    "aarch64:neoverse-n2",
]
"""Without an instruction for bytes, and with each of them."""


def target_of(name: str) -> Target:
    target = TARGETS[name]
    if reason := cannot_run(target) or missing_compiler(target.compiler):
        pytest.skip(reason)
    return target


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_convolutions(target: str, geometry: str, dtype: type) -> None:
    shape, kernel, attributes = GEOMETRIES[geometry]
    nodes = Nodes()
    x, weights = integers(dtype, *shape), integers(np.int8, *kernel)
    bias = fixed(RNG.integers(-999, 999, kernel[0]).astype(np.int32))
    scales = fixed(np.linspace(0.001, 0.02, kernel[0]).astype(np.float32))
    for zero in (0, 100, -128):
        if not np.iinfo(dtype).min <= zero <= np.iinfo(dtype).max:
            continue
        shift = fixed(dtype(zero))
        if dtype == np.uint8:
            nodes.add("ConvInteger", x, fixed(weights), shift, fixed(np.int8(0)), **attributes)
        nodes.add(
            "QLinearConv",
            x,
            fixed(np.float32(0.02)),
            shift,
            fixed(weights),
            scales,
            fixed(np.zeros(kernel[0], np.int8)),
            fixed(np.float32(0.1)),
            fixed(dtype(10)),
            bias,
            **attributes,
        )
    nodes.check(target_of(target))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_unsigned_weights_around_any_zero_point(target: str) -> None:
    """Those within 128 of it become int8; the others have a kernel of wider numbers."""
    for low, high, zero, channels in (
        (0, 255, 128, 16),
        (60, 200, 90, 16),
        (0, 255, 20, 16),
        (0, 255, 99, 3),
        (0, 255, 99, 22),
    ):
        nodes = Nodes()
        weights = RNG.integers(low, high, (32, channels, 3, 3), endpoint=True).astype(np.uint8)
        parameters = (
            fixed(np.float32(0.01)),
            fixed(np.uint8(zero)),
            fixed(np.float32(0.9)),
            fixed(np.uint8(7)),
        )
        x = integers(np.uint8, 1, channels, 6, 6)
        nodes.add("QLinearConv", x, fixed(np.float32(0.02)), fixed(np.uint8(3)), fixed(weights), *parameters)
        nodes.check(target_of(target))


def test_sums_beyond_the_range_of_float32() -> None:
    nodes = Nodes()
    x = np.full((1, 600, 3, 3), 255, np.uint8)
    weights = np.full((17, 600, 1, 1), 127, np.int8)
    weights[:, ::7] = 126
    nodes.add("ConvInteger", x, fixed(weights))
    nodes.add("MatMulInteger", np.full((3, 70000), 255, np.uint8), fixed(np.full((70000, 2), -125, np.int8)))
    nodes.check()


def test_weights_at_run_time() -> None:
    nodes = Nodes()
    nodes.add(
        "ConvInteger", integers(np.uint8, 1, 3, 6, 6), integers(np.uint8, 5, 3, 3, 3), fixed(np.uint8(3))
    )
    nodes.check()


@pytest.mark.parametrize("target", ["aarch64:neoverse-n1", "aarch64:neoverse-n2"])
def test_products_of_any_number_of_rows(target: str) -> None:
    nodes = Nodes()
    for rows in (1, 2, 3, 9, 17):
        for depth in (4, 8, 12, 16, 36):
            right = fixed(integers(np.int8, depth, 5 * rows))
            nodes.add("MatMulInteger", integers(np.uint8, rows, depth), right)
    nodes.check(target_of(target))


@pytest.mark.parametrize("depth", [19, 20, 132])
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_products(target: str, depth: int) -> None:
    nodes = Nodes()
    left, right = integers(np.uint8, 2, 7, depth), integers(np.int8, depth, 33)
    nodes.add("MatMulInteger", left, fixed(right), fixed(np.uint8(100)), fixed(np.int8(0)))
    nodes.add("MatMulInteger", left, fixed(right // 2), fixed(np.uint8(128)), fixed(np.int8(-3)))
    nodes.add("MatMulInteger", left, right)
    scales = fixed(np.linspace(0.01, 0.05, 33).astype(np.float32)), fixed(np.zeros(33, np.int8))
    for dtype, zero in ((np.uint8, 130), (np.uint8, 0), (np.int8, 0), (np.int8, -9)):
        x = integers(dtype, 2, 7, depth)
        fixed_parts = fixed(np.float32(0.02)), fixed(dtype(zero))
        nodes.add(
            "QLinearMatMul", x, *fixed_parts, fixed(right), *scales, fixed(np.float32(0.3)), fixed(dtype(40))
        )
    nodes.check(target_of(target))


def test_followers_are_fused() -> None:
    nodes = Nodes()
    x, weights = integers(np.uint8, 1, 16, 5, 5), integers(np.int8, 16, 16, 3, 3)
    sums = nodes.add("ConvInteger", x, fixed(weights))
    nodes.add("Mul", nodes.add("Cast", sums, to=1), fixed(np.float32(0.25)))
    nodes.check()


@pytest.mark.skipif(native().core.dot is None, reason="no instruction for bytes here")
def test_a_measured_choice_of_floats_changes_no_result() -> None:
    """The same sums, exactly: every one of them fits into a float32."""
    nodes = Nodes()
    weights = fixed(integers(np.int8, 32, 3, 3, 3))
    nodes.add("ConvInteger", integers(np.uint8, 1, 3, 9, 9), weights, fixed(np.uint8(7)), pads=[1, 1, 1, 1])
    model = ir.from_proto(nodes.proto())
    [expected] = reference(model, nodes.feeds)
    normalise(model)
    recorder = Recorder()
    lower_model(model, native().core, recorder)
    [workload] = recorder.workloads
    floats = next(
        config for _, config in byte_conv.candidates(workload, native().core) if byte_conv.is_float(config)
    )
    measured = Measured({workload: [floats]})
    buffers = [b for kernel in lower_model(model, native().core, measured).kernels() for b in kernel.buffers]
    assert "float32" in {buffer.dtype for buffer in buffers}
    assert_same("y", compiled(model, nodes.feeds, schedules=measured)[0], expected)


def test_empty_operands() -> None:
    nodes = Nodes()
    nodes.add("MatMulInteger", integers(np.uint8, 0, 8), fixed(integers(np.int8, 8, 5)))
    nodes.add("ConvInteger", integers(np.uint8, 0, 16, 5, 5), fixed(integers(np.int8, 16, 16, 3, 3)))
    nodes.check()
