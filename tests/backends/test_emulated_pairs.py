"""Kernels of halves and bytes on ARM cores, which take several from a lane of a register, under an emulator next to ONNX Runtime."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from graphopt import api
from graphopt.backends import execution
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run, open_anywhere
from graphopt.backends.targets import find_target
from graphopt_runtime.artifact import open_artifact
from tests.backends.lower.harness import Nodes, assert_same, fixed
from tests.conftest import make_model, reference

RNG = np.random.default_rng(6)
TEXT = """g (float[16,128] x) => (float[16,96] y) { a = MatMul(x, v) b = Relu(a) y = MatMul(b, w) }"""
CONVOLUTIONS = [
    ((1, 19, 5, 7), (24, 19, 1, 1), {}),
    ((1, 32, 6, 6), (16, 16, 3, 3), {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
]


def check(nodes: Nodes, name: str, folder: Path) -> None:
    """Compile for a target and compare under the emulator; skips where something is missing."""
    target = find_target(name)
    if (reason := cannot_run(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    model = ir.from_proto(nodes.proto())
    expected = reference(model, nodes.feeds)
    api.build(model, folder / "m.gopt", name, check=False)
    compiled, _ = open_anywhere(folder / "m.gopt")
    with compiled:
        for want, got in zip(expected, compiled.run(None, nodes.feeds), strict=True):
            assert_same("", got, want)


@pytest.mark.parametrize("name", ["aarch64:neoverse-v1", "aarch64:neoverse-n1"])
def test_halves(name: str, tmp_path: Path) -> None:
    """With `bfdot`, and without."""
    nodes = Nodes()

    def rounded(*shape: int) -> np.ndarray:
        return RNG.standard_normal(shape).astype(ml_dtypes.bfloat16).astype(np.float32)

    def halved(x: np.ndarray) -> str:
        return nodes.add("Cast", nodes.add("Cast", x, to=TensorProto.BFLOAT16), to=TensorProto.FLOAT)

    for shape, kernel, attributes in CONVOLUTIONS:
        x = RNG.standard_normal(shape).astype(np.float32)
        nodes.add("Conv", halved(x), fixed(rounded(*kernel)), **attributes)
    for depth in (6, 34):
        x = RNG.standard_normal((2, 5, depth)).astype(np.float32)
        nodes.add("MatMul", halved(x), fixed(rounded(depth, 21)))
    check(nodes, name, tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes(dtype: type, tmp_path: Path) -> None:
    nodes, limits = Nodes(), np.iinfo(dtype)

    def integers(kind: type, *shape: int) -> np.ndarray:
        return RNG.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, endpoint=True).astype(kind)

    zero, scale = fixed(dtype(limits.max - 90)), fixed(np.float32(0.02))
    for shape, kernel, attributes in CONVOLUTIONS:
        scales = fixed(np.full(kernel[0], 0.01, np.float32)), fixed(np.zeros(kernel[0], np.int8))
        x, weights = integers(dtype, *shape), fixed(integers(np.int8, *kernel))
        nodes.add("QLinearConv", x, scale, zero, weights, *scales, fixed(np.float32(0.9)), zero, **attributes)
    for depth in (12, 68):
        x, weights = integers(dtype, 2, 5, depth), fixed(integers(np.int8, depth, 21))
        scales = fixed(np.full(21, 0.01, np.float32)), fixed(np.zeros(21, np.int8))
        nodes.add("QLinearMatMul", x, scale, zero, weights, *scales, fixed(np.float32(0.9)), zero)
    check(nodes, "aarch64:cortex-a76", tmp_path)


@pytest.mark.parametrize(
    ("name", "allowed"), [("aarch64:neoverse-n1", 8.6e-3), ("aarch64:neoverse-n2", 6.5e-3)]
)
@pytest.mark.parametrize("model", ["digits_student", "digits_cnn", "digits_transformer"])
def test_shipped_models_in_float16(model: str, name: str, allowed: float, tmp_path: Path) -> None:
    """With sums of float16 up to 72 products long, and, with `fmlal`, 40; the tolerances are those of two layers."""
    target = find_target(name)
    if (reason := cannot_run(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    path = Path(__file__).parents[2] / "models" / f"{model}.onnx"
    done = api.build(path, tmp_path / "m.gopt", name, precision="fp16")
    assert done.verdict.passed
    assert 0 < done.verdict.max_rel_err < allowed
    assert done.verdict.where == "under qemu-aarch64"
    assert open_artifact(tmp_path / "m.gopt").manifest["precision"] == "float16"


@pytest.mark.parametrize("emulated", [True, False])
def test_a_model_is_verified(emulated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing runs the instruction, what stands in computes the same sums in float32."""
    target = find_target("aarch64:neoverse-v1")
    if (reason := cannot_run(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    if not emulated:
        monkeypatch.setattr(execution, "emulator", lambda target: None)
    weights = {name: RNG.standard_normal((128, n)).astype(np.float32) for name, n in (("v", 128), ("w", 96))}
    done = api.build(make_model(TEXT, **weights), tmp_path / "m.gopt", target.name, precision="bf16")
    assert done.verdict.passed
    assert done.verdict.where == ("under qemu-aarch64" if emulated else "by the same kernels on this machine")
    assert 1e-4 < done.verdict.max_rel_err < 1e-2
    assert done.notices == [f"{target.name}: 2 of 2 convolutions and products multiply bfloat16"]
