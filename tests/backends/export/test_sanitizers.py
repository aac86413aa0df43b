"""The C interface under valgrind and the sanitizers: many threads on one model, and allocations that fail."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from graphopt.backends.codegen.toolchain import WITHOUT_FORKS, csrc
from graphopt.backends.export.emit import WEIGHTS, Export
from graphopt.backends.targets import find_target, runs_here
from graphopt.compiling.building import Options, make
from tests.conftest import make_model

STRESS = Path(__file__).with_name("stress.c")

SANITIZERS = {
    "address": ["-fsanitize=address", "-fno-omit-frame-pointer"],
    "undefined": ["-fsanitize=undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"), size=10)


def write_sources(folder: Path, size: int) -> Path:
    """All that a library for images of `size` x `size` is made of, the C runtime included, to be compiled in other
    ways; valgrind knows no AVX-512."""
    target = find_target("x86-64-v3")
    if (reason := runs_here(target)) is not None:
        pytest.skip(reason)
    random = np.random.default_rng(0)
    text = f"""agraph (float[1,16,{size},{size}] x) => (float[1,10] y) {{
        a = Conv<pads = [1,1,1,1]>(x, w) b = Relu(a) c = Conv(b, v) p = GlobalAveragePool(c) f = Flatten(p)
        y = MatMul(f, m) }}"""
    shapes = {"w": (16, 16, 3, 3), "v": (48, 16, 1, 1), "m": (48, 10)}
    weights = {name: random.standard_normal(shape).astype(np.float32) / 9 for name, shape in shapes.items()}
    [library] = make(make_model(text, **weights), target.name, "net", Options(check=False)).libraries
    export = Export(library, "net", target)
    for i, content in enumerate(library.objects):
        (folder / f"compiled{i}.o").write_bytes(content)
    texts = {
        "net.h": export.render("model.h"),
        "interface.c": export.render("model.c"),
        "glue.c": library.glue,
        "weights.S": WEIGHTS.format("net"),
    }
    for name, content in texts.items():
        (folder / name).write_text(content)
    (folder / "weights.bin").write_bytes(library.weights)
    return folder


def build(sources: Path, program: Path, *flags: str) -> Path:
    compiled = sorted(sources.glob("compiled*.o"))
    runtime = [csrc() / name for name in WITHOUT_FORKS]
    own = [sources / name for name in ("interface.c", "glue.c", "weights.S")]
    command = ["cc", "-std=c11", "-O1", "-g", f"-I{csrc()}", f"-I{sources}", *flags, STRESS, *own, *runtime]
    command += [*compiled, "-pthread", "-lm", "-o", program]
    subprocess.run([str(part) for part in command], check=True, cwd=sources)
    return program


@pytest.mark.parametrize("name", SANITIZERS)
def test_sanitizers_find_nothing(name: str, sources: Path, tmp_path: Path) -> None:
    program = build(sources, tmp_path / "program", *SANITIZERS[name])
    run(["setarch", "-R", str(program)] if shutil.which("setarch") else [str(program)])


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """With a handle of one thread: valgrind runs one thread at a time, so that those of a handle only spin. It emulates
    each lane of a multiplication that adds, so that images are small."""
    program = build(write_sources(tmp_path, size=4), tmp_path / "program")
    run(["valgrind", "--error-exitcode=9", "--leak-check=full", "-q", str(program), "1"])


def run(command: list[str]) -> None:
    """Nothing may be found, and the program itself be satisfied."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ}, timeout=280, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "10000 calls", "")
