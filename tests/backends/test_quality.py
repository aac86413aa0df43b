"""The loops of template kernels reach the peak of ARM cores, by LLVM's models of them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from graphopt.backends import quality
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.compiler import compile_models
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.window import Window
from graphopt.backends.quality import Loop, cannot_judge, judge
from graphopt.backends.schedules import conv, gemm
from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.workload import Workload
from graphopt.backends.targets import find_target
from graphopt.backends.tune.building import Candidate, build
from graphopt.compiling.precision import multiplying
from graphopt.errors import TargetError
from graphopt.model import normalise
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def convolution(channels: int, filters: int, size: int, kernel: int, stride: int = 1) -> Workload:
    inside, outside, pad = (size, size), (size // stride, size // stride), kernel // 2
    window = Window(inside, outside, (kernel, kernel), (stride, stride), (pad, pad), (1, 1))
    return conv.workload(ConvShape(1, 1, channels, filters, window), blocked=True)


TEMPLATES: Mapping[str, Workload] = {
    "gemm": gemm.workload(1, 128, 384, 384, packed=True),
    "gemm in place": gemm.workload(8, 64, 64, 64, packed=False),
    "pointwise": convolution(128, 128, 28, 1),
    "winograd": convolution(64, 64, 28, 3),
    "strided": convolution(64, 128, 28, 3, 2),
}

BARS = {
    "aarch64:neoverse-n1": 0.99,
    "aarch64:cortex-a72": 0.90,
    "aarch64:neoverse-v1": 0.95,
    "aarch64:cortex-a53": 0.45,
}
"""Cortex-A53 waits for every load, which its model counts."""


def judged(template: str, name: str, folder: Path) -> Loop:
    """The loop of the best schedule of a template; skips where something is missing."""
    target, workload = find_target(name), TEMPLATES[template]
    if (reason := cannot_judge(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    _, config = FAMILIES[workload.family].candidates(workload, target.core)[0]
    build([Candidate(workload, config)], target, 1 << 16, path := folder / "kernel.so")
    [loop] = [loop for loop in judge(path.read_bytes(), target) if "candidate" in loop.kernel]
    return loop


@pytest.mark.parametrize("name", BARS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_best_schedule_reaches_the_peak_without_spills(template: str, name: str, tmp_path: Path) -> None:
    loop = judged(template, name, tmp_path)
    assert loop.spills == 0
    assert BARS[name] <= loop.of_peak <= 1.01


def product_of_bytes(dtype: type) -> Nodes:
    nodes, scale = Nodes(), fixed(np.float32(0.01))
    right = fixed(np.arange(384 * 384).astype(np.int8).reshape(384, 384))
    zeros = [fixed(zero) for zero in (dtype(3), np.int8(0), dtype(0))]
    left = np.zeros((128, 384), dtype)
    nodes.add("QLinearMatMul", left, scale, zeros[0], right, scale, zeros[1], scale, zeros[2])
    return nodes


def convolution_of_bytes(dtype: type, channels: int, kernel: int, stride: int = 1) -> Nodes:
    nodes, scale, pad = Nodes(), fixed(np.float32(0.01)), kernel // 2
    shape = (channels, channels, kernel, kernel)
    weights = fixed(np.arange(np.prod(shape)).astype(np.int8).reshape(shape))
    zeros = [fixed(zero) for zero in (dtype(3), np.int8(0), dtype(0))]
    x = np.zeros((1, channels, 28, 28), dtype)
    nodes.add(
        "QLinearConv",
        x,
        scale,
        zeros[0],
        weights,
        scale,
        zeros[1],
        scale,
        zeros[2],
        pads=[pad, pad, pad, pad],
    )
    return nodes


BYTES: Mapping[str, Callable[[type], Nodes]] = {
    "gemm": product_of_bytes,
    "pointwise": lambda dtype: convolution_of_bytes(dtype, 128, 1),
    "3 x 3": lambda dtype: convolution_of_bytes(dtype, 64, 3),
    "strided": lambda dtype: convolution_of_bytes(dtype, 64, 3, 2),
}

BYTE_BARS: Mapping[str, tuple[str, float, float]] = {
    "aarch64:neoverse-n1": ("sdot", 0.90, 0.90),
    "aarch64:neoverse-v1": ("mmla", 0.95, 0.90),
    "aarch64:neoverse-n2": ("mmla", 0.95, 0.90),
    "aarch64:neoverse-v2": ("mmla", 0.85, 0.65),
}
"""The instruction, and the shares of its peak that products and convolutions reach. The model of Neoverse V2 takes six operations
a cycle, of which four could multiply, and counts a pair of loads as three."""


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("name", BYTE_BARS)
@pytest.mark.parametrize("template", BYTES)
def test_products_of_bytes_reach_the_peak_of_their_instruction(template: str, name: str, dtype: type) -> None:
    target, (instruction, of_product, of_convolution) = find_target(name), BYTE_BARS[name]
    if (reason := cannot_judge(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    model = ir.from_proto(BYTES[template](dtype).proto())
    normalise(model)
    [loop] = judge(compile_models([model], target).shared, target)
    assert any(name.endswith(instruction) for name in loop.mix)
    assert loop.spills == 0
    assert (of_product if template == "gemm" else of_convolution) <= loop.of_peak <= 1.01


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "aarch64:a64fx"])
def test_other_machines_are_judged(name: str, tmp_path: Path) -> None:
    """Their models are no gate: that of Zen, for one, has broadcasts take a port of the multiply-adds."""
    loop = judged("gemm", name, tmp_path)
    assert 0.4 < loop.of_peak <= 1.01
    assert loop.macs % find_target(name).lanes == 0


@pytest.mark.parametrize(("name", "bar"), [("x86-64-v4-bf16", 0.9), ("aarch64:neoverse-v1", 0.65)])
def test_products_of_halves_do_not_spill(name: str, bar: float) -> None:
    """LLVM has `bfdot` take a lane in place only where that was no load; on ARM every pair costs a broadcast."""
    target = find_target(name)
    if (reason := cannot_judge(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    nodes = Nodes()
    x = nodes.add("Cast", RNG.standard_normal((128, 384)).astype(np.float32), to=TensorProto.BFLOAT16)
    weights = np.round(RNG.standard_normal((384, 384))).astype(np.float32)
    nodes.add("MatMul", nodes.add("Cast", x, to=TensorProto.FLOAT), fixed(weights))
    model = ir.from_proto(nodes.proto())
    normalise(model)
    [loop] = [loop for loop in judge(compile_models([model], target).shared, target) if "gemm" in loop.kernel]
    assert loop.spills == 0
    assert bar <= loop.of_peak <= 1.01
    assert any(name in loop.mix for name in ("vdpbf16ps", "bfdot"))


def halved(weights: tuple[int, ...], x: tuple[int, ...], op: str, **attributes: object) -> Nodes:
    """A node whose operands were rounded to float16."""
    nodes = Nodes()
    short = nodes.add("Cast", np.ones(x, np.float32), to=TensorProto.FLOAT16)
    values = fixed(np.round(RNG.standard_normal(weights)).astype(np.float32))
    nodes.add(op, nodes.add("Cast", short, to=TensorProto.FLOAT), values, **attributes)
    return nodes


NARROW: Mapping[str, Callable[[], Nodes]] = {
    "gemm": lambda: halved((384, 384), (128, 384), "MatMul"),
    "pointwise": lambda: halved((128, 128, 1, 1), (1, 128, 28, 28), "Conv"),
    "3 x 3": lambda: halved((64, 64, 3, 3), (1, 64, 28, 28), "Conv", pads=[1, 1, 1, 1]),
    "strided": lambda: halved((64, 64, 3, 3), (1, 64, 56, 56), "Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
}

NARROW_BARS = {
    "aarch64:neoverse-n1": (0.84, 0.77),
    "aarch64:neoverse-n2": (0.88, 0.88),
    "aarch64:neoverse-v1": (0.88, 0.88),
    "aarch64:neoverse-v2": (0.80, 0.80),
}
"""Shares of the peak of `fmla v.8h`, with all that widening takes; of strided convolutions, for which LLVM adds up addresses."""


@pytest.mark.parametrize("name", NARROW_BARS)
@pytest.mark.parametrize("template", NARROW)
def test_products_of_float16_reach_the_peak_of_eight_lanes(template: str, name: str) -> None:
    target = multiplying(find_target(name), "fp16")
    if (reason := cannot_judge(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    model = ir.from_proto(NARROW[template]().proto())
    normalise(model)
    loops = judge(compile_models([model], target).shared, target)
    [loop] = [loop for loop in loops if "gemm" in loop.kernel or "half_conv" in loop.kernel]
    assert loop.mix["fmla.8h"] * 8 == loop.macs
    assert loop.spills == 0
    assert NARROW_BARS[name][template == "strided"] <= loop.of_peak <= 1.01


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_program", lambda name: None)
    assert "apt-get install llvm-22" in str(cannot_judge(find_target("aarch64")))
    with pytest.raises(TargetError, match="not installed"):
        judge(b"", find_target("aarch64"))


def test_targets_whose_multiply_adds_are_not_known() -> None:
    assert "x86-64-v2" in str(cannot_judge(find_target("x86-64-v2")))
