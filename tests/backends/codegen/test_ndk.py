"""Android: what its NDK brings, played by programs for other ARM systems under the NDK's names."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt.backends.codegen import ndk
from graphopt.backends.codegen.toolchain import companion, missing_compiler
from graphopt.backends.compiler import compile_models
from graphopt.backends.targets import find_target, runs_here
from graphopt.cli.inspection import target_rows
from graphopt.errors import TargetError
from graphopt_runtime import cpu
from tests.conftest import make_model

TARGET = "aarch64-android"
CROSS = "aarch64-linux-gnu-"


@pytest.fixture
def model() -> ir.Model:
    weights = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32)
    return make_model("g (float[3,16] x) => (float[3,12] y) { p = MatMul(x, w) y = Tanh(p) }", w=weights)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like an NDK."""
    programs = tmp_path / "ndk" / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64" / "bin"
    programs.mkdir(parents=True)
    for name, real in ((ndk.COMPILER, "gcc"), ("llvm-ar", "ar"), ("llvm-objcopy", "objcopy")):
        if shutil.which(f"{CROSS}{real}") is None:
            pytest.skip(f"{CROSS}{real} is missing")
        (programs / name).symlink_to(str(shutil.which(f"{CROSS}{real}")))
    monkeypatch.setenv(ndk.HOMES[0], str(tmp_path / "ndk"))
    return programs


def test_without_an_ndk_it_is_named(model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ndk.HOMES:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_target(TARGET).compiler == ndk.COMPILER
    with pytest.raises(TargetError, match=r"install Android's NDK.*ANDROID_NDK_HOME"):
        api.export(model, tmp_path / "p", TARGET, kind="object", check=False)
    assert not (tmp_path / "p").exists()
    [row] = [row for row in target_rows() if row["target"] == TARGET]
    assert "NDK" in row["builds here"]


def test_it_is_found_below_its_home(home: Path) -> None:
    assert find_target(TARGET).compiler == str(home / ndk.COMPILER)
    assert missing_compiler(find_target(TARGET).compiler) is None
    assert companion(str(home / ndk.COMPILER), "ar") == str(home / "llvm-ar")


def test_what_is_on_the_path_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert find_target(TARGET).compiler == ndk.COMPILER


@pytest.mark.parametrize("kind", ["object", "static", "library"])
def test_exports(kind: str, home: Path, model: ir.Model, tmp_path: Path) -> None:
    done = api.export(model, tmp_path / "p", TARGET, name="net", kind=kind)
    assert done.verdict.passed
    assert done.verdict.where == "by the same kernels on this machine"
    [built] = [path for path in (tmp_path / "p" / "lib").iterdir() if path.is_file()]
    table = "-D" if kind == "library" else "-g"
    text = subprocess.run([f"{CROSS}nm", table, built], capture_output=True, text=True, check=True).stdout
    assert "net_run" in text
    assert "TVM" not in text


def test_kernels_leave_the_register_of_the_platform_alone(home: Path, tmp_path: Path) -> None:
    """Android keeps a stack of return addresses in x18, which is a register as any other elsewhere."""
    weights = np.ones((32, 16, 3, 3), np.float32)
    text = "g (float[1,16,9,9] x) => (float[1,32,5,5] y) { y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) }"
    users = {}
    for name in ("aarch64", TARGET):
        library = compile_models([make_model(text, w=weights)], find_target(name))
        (tmp_path / "o").write_bytes(library.objects[0])
        command = [f"{CROSS}objdump", "-d", tmp_path / "o"]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        users[name] = len(re.findall(r"\b[wx]18\b", code))
    assert users["aarch64"] > 0
    assert users[TARGET] == 0


def test_other_systems_do_not_run_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "aarch64")
    assert "android" in str(runs_here(find_target(TARGET)))
    assert "android" in find_target(TARGET).demands
    assert find_target(TARGET).compiler != "cc"
