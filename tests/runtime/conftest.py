"""Small compiled models whose kernels are hand-written C, in place of the compiler's objects."""

import ctypes
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.artifacts import artifact
from graphopt.backends.codegen.link import link
from graphopt_runtime import CompiledModel, Tensor, load
from graphopt_runtime.library import Handle, Library
from graphopt_runtime.tensors import allocate

HERE = Path(__file__).parent
PROBES = {
    name: index
    for index, name in enumerate(
        [
            "count",
            "meet",
            "nested",
            "fail",
            "fail_before_barrier",
            "nap",
            "workspace",
            "meet_some",
            "too_much",
            "arena",
            "units",
            "hold_first",
        ]
    )
}


def glue(variants: int, in_bytes: list[int], out_bytes: list[list[int]], workspace: int = 4096) -> str:
    """The glue of variants with one input each."""
    outputs = len(out_bytes[0])
    lines = ['#include "graphopt_rt.h"']
    for v in range(variants):
        parameters = ", ".join(["uint8_t *"] * (outputs + 1))
        arguments = ", ".join(f"out[{i}]" for i in range(outputs))
        lines += [
            f"int32_t graphopt_variant_{v}(const uint8_t *, const uint8_t *, {parameters});",
            f"static int call_{v}(const void *w, const void *const *in, void *const *out, void *ws) {{",
            f"    return graphopt_variant_{v}(w, in[0], {arguments}, ws);",
            "}",
            f"static const size_t in_{v}[] = {{{in_bytes[v]}}};",
            f"static const size_t out_{v}[] = {{{', '.join(map(str, out_bytes[v]))}}};",
        ]
    entries = ", ".join(f"{{call_{v}, 1, {outputs}, {workspace}, in_{v}, out_{v}}}" for v in range(variants))
    lines.append(f"const graphopt_variant graphopt_variants[] = {{{entries}}};")
    lines.append(f"const int graphopt_variant_count = {variants};")
    return "\n".join(lines)


def compile_object(source: str, folder: Path, *flags: str) -> bytes:
    out = folder / "kernels.o"
    command = ["cc", "-O2", "-fPIC", "-Wno-unused", *flags, "-c", str(HERE / source), "-o", str(out)]
    subprocess.run(command, check=True)
    return out.read_bytes()


def link_library(folder: Path, object_: bytes, glue_c: str, **options: Any) -> bytes:
    out = folder / "library.so"
    link([object_], glue_c, out, **options)
    return out.read_bytes()


ADD_GLUE = glue(2, [256, 512], [[256, 256], [512, 512]])


@pytest.fixture(scope="session")
def add_object(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_object("add.c", tmp_path_factory.mktemp("add"))


@pytest.fixture(scope="session")
def add_library(tmp_path_factory: pytest.TempPathFactory, add_object: bytes) -> bytes:
    return link_library(tmp_path_factory.mktemp("add"), add_object, ADD_GLUE)


@pytest.fixture(scope="session")
def triple_library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Like add_library, but its second output is three times the first."""
    folder = tmp_path_factory.mktemp("triple")
    return link_library(folder, compile_object("add.c", folder, "-DSCALE=3"), ADD_GLUE)


@pytest.fixture(scope="session")
def probe_object(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_object("probes.c", tmp_path_factory.mktemp("probes"))


@pytest.fixture(scope="session")
def greedy_library(tmp_path_factory: pytest.TempPathFactory, probe_object: bytes) -> bytes:
    """Like probe_library, but its workspace exceeds any memory."""
    n = len(PROBES)
    return link_library(
        tmp_path_factory.mktemp("greedy"), probe_object, glue(n, [4] * n, [[256]] * n, 1 << 60)
    )


@pytest.fixture(scope="session")
def probe_library(tmp_path_factory: pytest.TempPathFactory, probe_object: bytes) -> bytes:
    n = len(PROBES)
    return link_library(
        tmp_path_factory.mktemp("probes"), probe_object, glue(n, [4] * n, [[256]] * n, 3 << 20)
    )


def add_manifest(**changes: Any) -> dict[str, Any]:
    def tensor(name: str, size: int) -> dict[str, Any]:
        return {"name": name, "shape": [size], "dtype": "float32"}

    variants = [
        {"inputs": [tensor("x", n)], "outputs": [tensor("y", n), tensor("z", n)], "workspace_bytes": 4096}
        for n in (64, 128)
    ]
    target = {"name": "native", "arch": platform.machine(), "features": []}
    return {"graphopt": "0.1.0", "tvm": "0", "name": "add", "target": target, "variants": variants, **changes}


WEIGHTS = np.arange(128, dtype=np.float32)


@pytest.fixture
def write_add(tmp_path: Path, add_library: bytes) -> Callable[..., Path]:
    """Writes the artifact of add.c, with some keys of the manifest changed."""

    def write(
        library: bytes = add_library,
        name: str = "add.gopt",
        weights: bytes = WEIGHTS.tobytes(),
        apart: bool = False,
        **changes: Any,
    ) -> Path:
        path = tmp_path / name
        artifact.write(path, [artifact.Build(add_manifest(**changes), library, weights)], apart)
        return path

    return write


@pytest.fixture
def add_path(write_add: Callable[..., Path]) -> Path:
    return write_add()


@pytest.fixture
def model(add_path: Path) -> Iterator[CompiledModel]:
    with load(add_path, threads=2) as model:
        yield model


class Probes:
    """Runs the variants of probes.c on one handle."""

    def __init__(self, library: bytes, threads: int) -> None:
        self.library = Library(memoryview(library), "probes")
        self.handle = Handle(self.library, 0, threads, None)

    def run(self, name: str, argument: int = 0) -> tuple[int, list[int]]:
        """The status, and what the tasks wrote."""
        given, in_address = allocate(Tensor("in", (1,), np.dtype(np.int32)))
        taken, out_address = allocate(Tensor("out", (64,), np.dtype(np.int32)))
        given[:], taken[:] = argument, 0
        inputs, outputs = (ctypes.c_void_p * 1)(in_address), (ctypes.c_void_p * 1)(out_address)
        status = self.library.run(self.handle.address, PROBES[name], inputs, outputs)
        return status, taken.tolist()


@pytest.fixture
def probes(probe_library: bytes) -> Callable[[int], Probes]:
    return lambda threads: Probes(probe_library, threads)
