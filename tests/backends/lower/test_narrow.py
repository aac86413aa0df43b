"""Convolutions and products of float16 with sums of float16, next to float64, under an emulator."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.kernels.narrow import LARGEST, parts, scale_of
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import Target, find_target
from graphopt.model import normalise
from tests.backends.lower.harness import Fixed, Nodes, compiled, fixed
from tests.conftest import reference

RNG = np.random.default_rng(16)
TOLERANCES = {"aarch64:neoverse-n1": 4e-3, "aarch64:neoverse-n2": 3e-3}
"""Relative to the largest result; ONNX Runtime adds the same rounded operands in float32. The second has `fmlal`, and shorter sums."""

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((1, 16, 9, 10), (20, 16, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "pointwise": ((2, 19, 5, 7), (33, 19, 1, 1), {}),
    "deep": ((1, 200, 3, 3), (8, 200, 1, 1), {}),
    "few channels": ((1, 3, 9, 9), (16, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "whole blocks a group": ((1, 16, 5, 5), (24, 8, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "a large window": ((1, 5, 9, 9), (9, 5, 7, 7), {"pads": [3, 3, 3, 3]}),
    "dilated": ((2, 12, 9, 9), (16, 12, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "row": ((1, 32, 20), (12, 32, 3), {"pads": [1, 0]}),
}


def narrow(name: str) -> Target:
    """A target that multiplies float16."""
    target = find_target(name)
    return replace(target, core=replace(target.core, half=target.core.float16))


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def rounded(*shape: int) -> Fixed:
    """A constant that float16 holds."""
    return fixed(floats(*shape).astype(np.float16).astype(np.float32))


def halved(nodes: Nodes, x: np.ndarray | str) -> str:
    """`x` rounded to float16."""
    return nodes.add("Cast", nodes.add("Cast", x, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)


def check(nodes: Nodes, name: str, tolerance: float | None = None) -> None:
    target = narrow(name)
    if (reason := cannot_run(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    model = ir.from_proto(nodes.proto())
    expected = reference(model, nodes.feeds)
    normalise(model)
    allowed = TOLERANCES[name] if tolerance is None else tolerance
    for want, got in zip(expected, compiled(model, nodes.feeds, target), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=allowed * np.abs(want).max())


def kernels(nodes: Nodes, target: Target) -> list[str]:
    model = ir.from_proto(nodes.proto())
    normalise(model)
    return [kernel.name for kernel in lower_model(model, target.core).kernels()]


@pytest.mark.parametrize("target", TOLERANCES)
def test_convolutions(target: str) -> None:
    nodes = Nodes()
    for shape, kernel, attributes in GEOMETRIES.values():
        x = halved(nodes, floats(*shape))
        nodes.add("Relu", nodes.add("Conv", x, rounded(*kernel), fixed(floats(kernel[0])), **attributes))
    check(nodes, target)
    assert kernels(nodes, narrow(target)).count("half_conv") == len(GEOMETRIES)


@pytest.mark.parametrize("target", TOLERANCES)
def test_products(target: str) -> None:
    nodes = Nodes()
    for depth in (6, 19, 64, 150, 400):
        nodes.add("MatMul", halved(nodes, floats(2, 7, depth)), rounded(depth, 33))
    row = halved(nodes, floats(1, 130))
    nodes.add("Gemm", row, rounded(40, 130), fixed(floats(40)), transB=1, alpha=0.5, beta=2.0)
    check(nodes, target)


def test_activations_between_kernels_are_halves() -> None:
    nodes = Nodes()
    first = nodes.add("Relu", nodes.add("Conv", halved(nodes, floats(1, 32, 6, 6)), rounded(28, 32, 1, 1)))
    x = halved(nodes, first)
    nodes.add("Relu", nodes.add("Add", nodes.add("Conv", x, rounded(28, 28, 1, 1)), x))
    check(nodes, "aarch64:neoverse-n1")
    model = ir.from_proto(nodes.proto())
    normalise(model)
    program = lower_model(model, narrow("aarch64:neoverse-n1").core)
    written = [b.dtype for k in program.kernels() if k.name == "half_conv" for b in k.written]
    assert written == ["float16", "float32"]


def test_float16_is_added_in_float32_unless_asked_for() -> None:
    """A model may hold the same Casts of its own accord."""
    nodes = Nodes()
    nodes.add("Conv", halved(nodes, floats(1, 16, 5, 5)), rounded(16, 16, 3, 3))
    target = find_target("aarch64:neoverse-n1")
    assert "half_conv" not in kernels(nodes, target)
    assert "half_conv" in kernels(nodes, narrow(target.name))


def test_weights_beyond_float16_stay_float() -> None:
    for weights in (floats(16, 16, 3, 3), np.full((16, 16, 3, 3), 1e5, np.float32)):
        nodes = Nodes()
        nodes.add("Conv", halved(nodes, floats(1, 16, 5, 5)), fixed(weights))
        assert "half_conv" not in kernels(nodes, narrow("aarch64:neoverse-n1"))


@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize("size", [1e-4, 60.0])
def test_sums_do_not_leave_float16(size: float, name: str) -> None:
    """Whatever weights there are, activations of 4000 are not too large. Equal products have errors that add up."""
    nodes = Nodes()
    x = np.full((4, 144), 4000.0, np.float32)
    weights = np.full((144, 16), np.float16(size), np.float32)
    nodes.add("MatMul", halved(nodes, x), fixed(weights))
    check(nodes, name, 0.01)


def test_scales() -> None:
    weights = np.array([[3.0, -100.0, 50.0], [1.0, 1.0, 1.0]])
    assert scale_of(weights, 2) == 16
    assert np.abs(weights[0]).sum() / scale_of(weights, 3) <= LARGEST
    assert scale_of(weights / 1024, 2) == 16 / 1024
    assert scale_of(np.zeros((2, 3)), 2) == 1
    assert scale_of(np.full((1, 64), 65504.0), 64) == 2**15
    assert scale_of(np.full((1, 64), 1e-7), 64) == 2**-14


def test_parts() -> None:
    assert parts(48, 9) == [(0, 8, 6)]
    assert parts(10, 4) == [(0, 4, 2), (8, 2, 1)]
    assert parts(3, 9) == [(0, 3, 1)]
    assert parts(0, 9) == []
