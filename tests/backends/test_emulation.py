"""Models for other machines: built here, run under an emulator, next to ONNX Runtime."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt.artifacts.device import RemoteModel, Session
from graphopt.backends import emulation, execution
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.emulation import emulated
from graphopt.backends.execution import cannot_run, emulator_of, open_anywhere
from graphopt.backends.kernels.core import Core
from graphopt.backends.targets import TARGETS, Target, find_target, native
from graphopt.errors import ArtifactError, DeviceError, TargetError
from graphopt_runtime.artifact import last_build
from tests.conftest import make_model

EMULATED = [name for name, target in TARGETS.items() if target.platform.emulator]


def require(name: str) -> None:
    """Skip where the machine lacks what it takes."""
    target = find_target(name)
    if (reason := cannot_run(target)) is not None or (
        reason := missing_compiler(target.compiler)
    ) is not None:
        pytest.skip(reason)


@pytest.fixture
def model() -> ir.Model:
    """A convolution of blocked channels, one of 3 x 3 and stride 1, a product, and functions that are polynomials."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    text = """agraph (float[1,3,13,11] x) => (float[1,10] y) {
        a = Conv<pads = [1,1,1,1]>(x, u)
        b = Relu(a)
        c = Conv<pads = [1,1,1,1]>(b, v)
        d = Add(b, c)
        e = Conv<strides = [2,2]>(d, w)
        f = GlobalAveragePool(e)
        g = Flatten(f)
        h = MatMul(g, m)
        i = Erf(h)
        y = Softmax(i)
    }"""
    return make_model(
        text, u=weights(20, 3, 3, 3), v=weights(20, 20, 3, 3), w=weights(24, 20, 1, 1), m=weights(24, 10)
    )


@pytest.mark.parametrize("name", EMULATED)
def test_results_are_those_of_onnx_runtime(name: str, model: ir.Model, tmp_path: Path) -> None:
    require(name)
    done = api.build(model, tmp_path / "m.gopt", name)
    assert done.verdict.passed
    assert done.verdict.where == f"under {emulator_of(find_target(name))}"


LENGTHS = [
    *((name, bits) for name in ("aarch64:neoverse-v1", "aarch64:neoverse-n2") for bits in (128, 256, 512)),
    ("aarch64:a64fx", 512),
]
"""Targets and lengths of scalable vectors in bits, at least as long as the target's own."""


@pytest.mark.parametrize(("name", "bits"), LENGTHS)
def test_vectors_of_any_length(
    name: str, bits: int, model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(name)
    lengths = ",".join(f"sve{length}={'on' if length <= bits else 'off'}" for length in (128, 256, 512))

    def with_length(target: Target) -> Session:
        return emulated(replace(target, emulated_cpu=f"max,{lengths}"))

    monkeypatch.setattr(execution, "emulated", with_length)
    assert api.build(model, tmp_path / "m.gopt", name).verdict.passed


def test_kernels_of_longer_vectors(model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length that no core of the table has: kernels of 256 bits, on vectors as long and longer."""
    require("aarch64:neoverse-v1")
    base = find_target("aarch64:neoverse-v1")
    for cpu in ("max,sve256=on,sve512=off", "max,sve512=on"):
        longer = replace(base, core=Core(8, 32), sve_bits=256, emulated_cpu=cpu)
        monkeypatch.setitem(TARGETS, base.name, longer)  # type: ignore[misc]
        assert api.build(model, tmp_path / "m.gopt", base.name).verdict.passed


def test_the_instructions_of_a_newer_core_stop_an_older_one(model: ir.Model, tmp_path: Path) -> None:
    """Code for a core with SVE uses it: an emulator without ends the process."""
    require("aarch64:a64fx")
    newer = find_target("aarch64:a64fx")
    api.build(model, tmp_path / "m.gopt", newer.name, check=False)
    feeds = {"x": np.zeros((1, 3, 13, 11), np.float32)}
    older = emulated(replace(newer, emulated_cpu="cortex-a72"))
    with (
        RemoteModel(tmp_path / "m.gopt", older, last_build) as compiled,
        pytest.raises(DeviceError, match="process ended"),
    ):
        compiled.run(None, feeds)


def test_an_artifact_runs_where_it_can(model: ir.Model, tmp_path: Path) -> None:
    require("aarch64")
    api.build(model, tmp_path / "m.gopt", "aarch64", check=False)
    compiled, emulator = open_anywhere(tmp_path / "m.gopt")
    with compiled:
        assert emulator == emulator_of(find_target("aarch64"))
        assert compiled.get_inputs()[0].name == "x"
    api.build(model, tmp_path / "m.gopt", f"aarch64,{native().name}", check=False)
    compiled, emulator = open_anywhere(tmp_path / "m.gopt")
    with compiled:
        assert emulator is None


def test_without_an_emulator_the_same_kernels_are_verified_here(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("aarch64")
    monkeypatch.setattr(execution, "emulator", lambda target: None)
    done = api.build(model, tmp_path / "m.gopt", "aarch64")
    assert done.verdict.passed
    assert done.verdict.where == "by the same kernels on this machine"
    with pytest.raises(ArtifactError, match="was built for aarch64"):
        open_anywhere(tmp_path / "m.gopt")


@pytest.mark.parametrize("name", ["aarch64:neoverse-n1", "aarch64:neoverse-n2"])
def test_without_an_emulator_bytes_are_multiplied_without_their_instruction(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(name)
    monkeypatch.setattr(execution, "emulator", lambda target: None)
    weights = np.arange(16 * 8).astype(np.int8).reshape(16, 8, 1, 1)
    model = make_model("g (uint8[1,8,3,3] x) => (int32[1,16,3,3] y) { y = ConvInteger(x, w) }", w=weights)
    done = api.build(model, tmp_path / "m.gopt", name)
    assert done.verdict.passed
    assert done.verdict.where == "by the same kernels on this machine"


def test_a_missing_emulator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "emulator", lambda target: None)
    with pytest.raises(TargetError, match="apt-get install qemu-user-static"):
        emulated(find_target("aarch64"))


def test_a_missing_compiler_is_named(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="apt-get install gcc-aarch64-linux-gnu"):
        api.build(model, tmp_path / "m.gopt", "aarch64", check=False)
    assert not (tmp_path / "m.gopt").exists()


def test_what_is_no_library_is_refused() -> None:
    require("aarch64")
    with emulated(find_target("aarch64")) as session, pytest.raises(DeviceError, match="qemu-aarch64"):
        session.load(memoryview(b"nonsense"), memoryview(b""), 1)


def test_a_crash_ends_the_session_alone(tmp_path: Path) -> None:
    """A library whose model crashes when it is created."""
    require("aarch64")
    target = find_target("aarch64")
    names = ("create", "run", "time", "error_string")
    source = "#include <stdlib.h>\n" + "".join(f"void *graphopt_{name}() {{ abort(); }}\n" for name in names)
    (tmp_path / "crash.c").write_text(source)
    command = [target.compiler, "-shared", "-fPIC", tmp_path / "crash.c", "-o", tmp_path / "crash.so"]
    subprocess.run(command, check=True)
    with emulated(target) as session, pytest.raises(DeviceError, match="process ended"):
        session.load(memoryview((tmp_path / "crash.so").read_bytes()), memoryview(b""), 1)


@pytest.mark.parametrize("name", ["armv7", "aarch64", "riscv64"])
def test_conversions_that_a_library_function_does(name: str, tmp_path: Path) -> None:
    """32-bit machines convert 64-bit integers by functions of the C compiler, which have calling conventions of their own."""
    require(name)
    model = make_model(
        """g (int64[5] i, float[5] f, double[5] d) => (float[5] a, double[5] b, int64[5] c, int64[5] e, float16[5] h) {
            a = Cast<to=1>(i) b = Cast<to=11>(i) c = Cast<to=7>(f) e = Cast<to=7>(d) h = Cast<to=10>(f) }"""
    )
    assert api.build(model, tmp_path / "m.gopt", name).verdict.passed
