"""Linking objects into libraries."""

import subprocess
from pathlib import Path

import pytest

from graphopt.backends.codegen import toolchain
from graphopt.backends.codegen.link import link
from graphopt.backends.codegen.toolchain import SINGLE_THREAD, SOURCES, csrc, runtime_objects
from graphopt.errors import OutputError, TargetError

KERNEL = """
#include <stdint.h>
int32_t graphopt_variant_0(const uint8_t *w, const uint8_t *x, uint8_t *y, uint8_t *s) { *y = *x + 1; return 0; }
int kernel_of_its_own(void) { return 1; }
"""
GLUE = """
#include "graphopt_rt.h"
int32_t graphopt_variant_0(const uint8_t *, const uint8_t *, uint8_t *, uint8_t *);
static int call_0(const void *w, const void *const *in, void *const *out, void *s) {
    return graphopt_variant_0(w, in[0], out[0], s);
}
const graphopt_variant graphopt_variants[] = {{call_0, 1, 1, 0}};
const int graphopt_variant_count = 1;
"""
EXPORTED = {
    "graphopt_create",
    "graphopt_create_with",
    "graphopt_destroy",
    "graphopt_error_string",
    "graphopt_run",
    "graphopt_set_passive",
    "graphopt_set_threads",
    "graphopt_time",
}
USER = """
#include <stdio.h>
#include "graphopt.h"
int main(void) {
    static _Alignas(64) unsigned char x = 41, y;
    const void *inputs[] = {&x};
    void *outputs[] = {&y};
    graphopt_model *model = graphopt_create(NULL, 0);
    int wrong = graphopt_run(model, 1, inputs, outputs), right = graphopt_run(model, 0, inputs, outputs);
    const void *misaligned[] = {&x + 1};
    int unstaged = graphopt_run(model, 0, misaligned, outputs);
    graphopt_destroy(model);
    graphopt_destroy(NULL);
    printf("%d %d %d %d; %s; %s", wrong, right, unstaged, y, graphopt_error_string(wrong), graphopt_error_string(99));
}
"""


@pytest.fixture
def kernel(tmp_path: Path) -> bytes:
    return compile_c(tmp_path, KERNEL)


def compile_c(folder: Path, source: str) -> bytes:
    command = ["cc", "-x", "c", "-O2", "-fPIC", "-c", "-", "-o", str(folder / "kernel.o")]
    subprocess.run(command, input=source, text=True, check=True)
    return (folder / "kernel.o").read_bytes()


def symbols(library: Path, *flags: str) -> set[str]:
    result = subprocess.run(["nm", *flags, str(library)], check=True, capture_output=True, text=True)
    return {line.split()[-1].split("@")[0] for line in result.stdout.splitlines()}


def test_only_the_interface_is_exported(tmp_path: Path, kernel: bytes) -> None:
    link([kernel], GLUE, tmp_path / "m.so")
    assert symbols(tmp_path / "m.so", "-D", "--defined-only") == EXPORTED


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, kernel: bytes) -> None:
    link([kernel], GLUE, tmp_path / "a.so")
    runtime_objects.cache_clear()
    link([kernel], GLUE, tmp_path / "b.so")
    contents = (tmp_path / "a.so").read_bytes()
    assert contents == (tmp_path / "b.so").read_bytes()
    assert not [word for word in (b"/tmp", str(Path.cwd()).encode()) if word in contents]


@pytest.mark.parametrize("sources", [SOURCES, SINGLE_THREAD], ids=["threads", "single thread"])
def test_c_programs_can_use_the_library(tmp_path: Path, kernel: bytes, sources: tuple[str, ...]) -> None:
    library, program = tmp_path / "libm.so", tmp_path / "program"
    link([kernel], GLUE, library, sources=sources)
    command = [
        "cc",
        "-x",
        "c",
        "-I",
        str(csrc()),
        "-",
        "-x",
        "none",
        str(library),
        "-o",
        str(program),
    ]
    subprocess.run(command, input=USER, text=True, check=True)
    result = subprocess.run([program], check=True, capture_output=True, text=True)
    assert result.stdout == "1 0 4 42; the model has no variant of that number; unknown error"


def test_single_thread_libraries_need_no_threads(tmp_path: Path, kernel: bytes) -> None:
    link([kernel], GLUE, tmp_path / "m.so", sources=SINGLE_THREAD)
    assert not [name for name in symbols(tmp_path / "m.so", "-D") if name.startswith("pthread")]


def test_the_runtime_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = runtime_objects()
    monkeypatch.setattr(toolchain, "run_tool", lambda command, folder: pytest.fail("compiled again"))
    assert runtime_objects() == objects


@pytest.mark.parametrize(
    ("cc", "advice"),
    [
        ("/nowhere/aarch64-linux-gnu-gcc", "apt-get install gcc-aarch64-linux-gnu"),
        ("/nowhere/cc", "apt-get install gcc libc6-dev"),
        ("/nowhere/icc", "install it or name another"),
    ],
)
def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path, cc: str, advice: str) -> None:
    with pytest.raises(TargetError, match=f"{cc}.*{advice}"):
        link([b""], GLUE, tmp_path / "m.so", cc)
    assert not (tmp_path / "m.so").exists()


def test_unknown_symbols_are_named(tmp_path: Path) -> None:
    source = "int unknown(void); int graphopt_variant_0(void) { return unknown(); }"
    with pytest.raises(TargetError, match=r"undefined symbols unknown$"):
        link([compile_c(tmp_path, source)], GLUE, tmp_path / "m.so")


def test_refused_glue_shows_what_the_compiler_says(tmp_path: Path, kernel: bytes) -> None:
    with pytest.raises(TargetError, match=r"glue\.c:.*error"):
        link([kernel], "not C", tmp_path / "m.so")


def test_a_folder_that_does_not_exist_is_reported(tmp_path: Path, kernel: bytes) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        link([kernel], GLUE, tmp_path / "nowhere" / "m.so")
