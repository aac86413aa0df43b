"""Convolutions and products of operands rounded to bfloat16, against ONNX Runtime's float32 of the same rounded operands."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from graphopt.backends.codegen.program import Program
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import TARGETS, Target, runs_here
from graphopt.errors import UnsupportedError
from graphopt.model import normalise
from tests.backends.lower.harness import Fixed, Nodes, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(21)
TARGET_NAMES = ["x86-64-v4", "x86-64-v4-bf16"]
"""Without the instruction, and with it."""

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((1, 16, 9, 10), (20, 16, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "pointwise": ((2, 19, 5, 7), (33, 19, 1, 1), {}),
    "few channels": ((1, 3, 9, 9), (16, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks of channels": ((1, 80, 7, 9), (48, 80, 3, 3), {"pads": [1, 0, 2, 1]}),
    "whole blocks a group": ((1, 64, 5, 5), (32, 32, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "ragged groups": ((1, 6, 6, 6), (9, 2, 3, 3), {"group": 3}),
    "dilated": ((2, 36, 9, 9), (16, 36, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "row": ((1, 32, 20), (16, 32, 3), {"pads": [1, 0]}),
}


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def rounded(*shape: int) -> Fixed:
    """A constant that bfloat16 holds."""
    return fixed(floats(*shape).astype(ml_dtypes.bfloat16).astype(np.float32))


def halved(nodes: Nodes, x: np.ndarray | str) -> str:
    """`x` rounded to bfloat16."""
    return nodes.add("Cast", nodes.add("Cast", x, to=TensorProto.BFLOAT16), to=TensorProto.FLOAT)


def target_of(name: str) -> Target:
    target = TARGETS[name]
    if reason := runs_here(target):
        pytest.skip(reason)
    return target


def lowered(nodes: Nodes, name: str = "x86-64-v4-bf16") -> Program:
    model = ir.from_proto(nodes.proto())
    normalise(model)
    return lower_model(model, TARGETS[name].core)


def stored(program: Program, name: str) -> list[str]:
    """Dtypes of what the kernels of a name store."""
    kernels = [kernel for kernel in program.kernels() if kernel.name == name]
    return [buffer.dtype for kernel in kernels for buffer in kernel.written]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_convolutions(target: str, geometry: str) -> None:
    shape, kernel, attributes = GEOMETRIES[geometry]
    nodes = Nodes()
    x = halved(nodes, floats(*shape))
    nodes.add("Conv", x, rounded(*kernel), fixed(floats(kernel[0])), **attributes)
    nodes.add("Relu", nodes.add("Conv", x, rounded(*kernel), **attributes))
    nodes.check(target_of(target))


@pytest.mark.parametrize("depth", [19, 20, 130])
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_products(target: str, depth: int) -> None:
    nodes = Nodes()
    x = halved(nodes, floats(2, 7, depth))
    nodes.add("MatMul", x, rounded(depth, 33))
    nodes.add("MatMul", x, rounded(depth, 1))
    nodes.add("MatMul", x, rounded(depth))
    nodes.add("MatMul", x, rounded(2, depth, 17))
    row = halved(nodes, floats(1, depth))
    nodes.add("Gemm", row, rounded(40, depth), fixed(floats(40)), transB=1, alpha=0.5, beta=2.0)
    column = halved(nodes, floats(depth, 5))
    nodes.add("Gemm", column, rounded(depth, 16), transA=1)
    nodes.check(target_of(target))


def test_pairs_are_used() -> None:
    nodes = Nodes()
    nodes.add("Conv", halved(nodes, floats(1, 16, 5, 5)), rounded(16, 16, 3, 3))
    assert stored(lowered(nodes), "half_conv")
    assert not stored(lowered(nodes, "x86-64-v4"), "half_conv")


def test_weights_beyond_bfloat16_stay_float() -> None:
    nodes = Nodes()
    nodes.add("Conv", halved(nodes, floats(1, 16, 5, 5)), fixed(floats(16, 16, 3, 3)))
    assert not stored(lowered(nodes), "half_conv")
    nodes.check(target_of("x86-64-v4-bf16"))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_activations_between_kernels_are_halves(target: str) -> None:
    """What a kernel computes is rounded as it is stored; a residual reads the same halves."""
    nodes = Nodes()
    first = nodes.add("Relu", nodes.add("Conv", halved(nodes, floats(1, 32, 6, 6)), rounded(32, 32, 1, 1)))
    x = halved(nodes, first)
    nodes.add("Relu", nodes.add("Add", nodes.add("Conv", x, rounded(32, 32, 1, 1)), x))
    nodes.check(target_of(target))
    assert stored(lowered(nodes), "half_conv") == ["uint16", "float32"]


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_what_two_kernels_read_is_rounded_once(target: str) -> None:
    nodes = Nodes()
    pads = fixed(np.array([0, 8, 0, 0, 0, 8, 0, 0]))
    first = nodes.add("Add", floats(1, 32, 6, 6), nodes.add("Pad", floats(1, 16, 6, 6), pads))
    x = halved(nodes, first)
    nodes.add("Relu", nodes.add("Add", nodes.add("Conv", x, rounded(32, 32, 1, 1)), x))
    nodes.check(target_of(target))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_halves_are_moved(target: str) -> None:
    nodes = Nodes()
    parts = [nodes.add("Cast", floats(1, 16, 4, 6), to=TensorProto.BFLOAT16) for _ in range(2)]
    joined = nodes.add("Concat", *parts, axis=1)
    rows = nodes.add("Reshape", nodes.add("Transpose", joined, perm=[0, 2, 3, 1]), fixed(np.array([24, 32])))
    nodes.add("MatMul", nodes.add("Cast", rows, to=TensorProto.FLOAT), rounded(32, 24))
    nodes.add(
        "Cast", nodes.add("Slice", rows, fixed(np.array([1])), fixed(np.array([9]))), to=TensorProto.DOUBLE
    )
    nodes.check(target_of(target))


def test_rounding() -> None:
    """To nearest, half to even; infinities, zeros and NaN stay what they are; constants are rounded too."""
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4028235e38, 1e-40], np.float32)
    special = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0], np.float32)
    payload = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    x = np.concatenate([halfway, special, payload, floats(20)])
    nodes = Nodes()
    halved(nodes, x)
    halved(nodes, fixed(halfway))
    nodes.add("Cast", nodes.add("Cast", np.arange(300), to=TensorProto.BFLOAT16), to=TensorProto.INT64)
    nodes.check()


def test_arithmetic_on_halves_is_refused() -> None:
    text = """agraph (float[4] x) => (float[4] y) {
        a = Cast<to = 16>(x) b = Relu(a) y = Cast<to = 1>(b) }"""
    model = make_model(text, 21)
    normalise(model)
    with pytest.raises(UnsupportedError, match=r"'[ab]' has element type BFLOAT16"):
        lower_model(model, TARGETS["x86-64-v4-bf16"].core)


def test_halves_at_the_border_of_a_model_are_refused() -> None:
    model = make_model("agraph (float[4] x) => (bfloat16[4] y) { y = Cast<to = 16>(x) }", 21)
    with pytest.raises(UnsupportedError, match="'y' has element type BFLOAT16"):
        lower_model(model, TARGETS["x86-64-v4-bf16"].core)
