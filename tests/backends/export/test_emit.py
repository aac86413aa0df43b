"""Libraries for C and C++ builds, used as a build would use them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.targets import find_target
from graphopt.errors import GraphoptError, OutputError, TargetError
from tests.conftest import make_model, reference

PROGRAM = Path(__file__).with_name("program.c")
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]


@pytest.fixture(scope="module")
def model() -> ir.Model:
    """Two inputs, one of which is a whole number, and two outputs."""
    random = np.random.default_rng(0)
    text = """agraph (float[2,3,8,8] x, int32[1] scale) => (float[2,5] y, float[2,5,8,8] features) {
        c = Conv<pads = [1,1,1,1]>(x, w)
        features = Relu(c)
        p = GlobalAveragePool(features)
        f = Flatten(p)
        s = Cast<to = 1>(scale)
        y = Mul(f, s)
    }"""
    return make_model(text, w=random.standard_normal((5, 3, 3, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def prefix(model: ir.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static library."""
    folder = tmp_path_factory.mktemp("static")
    api.export(model, folder, name="net", check=False)
    return folder


def feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "x": random.standard_normal((2, 3, 8, 8)).astype(np.float32),
        "scale": np.array([3], np.int32),
    }


def build(prefix: Path, folder: Path, *flags: str, cc: str = "cc") -> Path:
    program = folder / "program"
    command = [cc, "-std=c11", *STRICT, f"-I{prefix}/include", PROGRAM, "-o", program, *flags]
    subprocess.run([str(part) for part in command], check=True)
    return program


def require_same_results(
    model: ir.Model, folder: Path, command: Sequence[str | Path], **environment: str
) -> None:
    """Runs a program that reads inputs from files and writes outputs to files."""
    given = feeds()
    for name, array in given.items():
        array.tofile(folder / f"{name}.bin")
    subprocess.run([str(part) for part in command], check=True, cwd=folder, env={**os.environ, **environment})
    for name, expected in zip(("y", "features"), reference(model, given), strict=True):
        found = np.fromfile(folder / f"{name}.bin", np.float32).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_static_library(model: ir.Model, prefix: Path, tmp_path: Path) -> None:
    program = build(prefix, tmp_path, f"{prefix}/lib/libnet.a", "-pthread", "-lm")
    require_same_results(model, tmp_path, [program])


def test_a_shared_library(model: ir.Model, tmp_path: Path) -> None:
    api.export(model, tmp_path / "p", name="net", kind="library", check=False)
    program = build(tmp_path / "p", tmp_path, f"-L{tmp_path}/p/lib", "-lnet")
    require_same_results(model, tmp_path, [program], LD_LIBRARY_PATH=f"{tmp_path}/p/lib")


def test_one_object_without_threads(model: ir.Model, tmp_path: Path) -> None:
    api.export(model, tmp_path / "p", name="net", kind="object", single_thread=True, check=False)
    program = build(tmp_path / "p", tmp_path, f"{tmp_path}/p/lib/net.o", "-lm")
    require_same_results(model, tmp_path, [program])
    assert "pthread" not in symbols(tmp_path / "p" / "lib" / "net.o", "-u")


def test_weights_in_a_file_of_their_own(model: ir.Model, tmp_path: Path) -> None:
    api.export(model, tmp_path / "p", name="net", embed_weights=False, check=False)
    weights = tmp_path / "p" / "share" / "net" / "weights.bin"
    program = build(tmp_path / "p", tmp_path, "-DSEPARATE", f"{tmp_path}/p/lib/libnet.a", "-pthread", "-lm")
    require_same_results(model, tmp_path, [program, weights])


@pytest.mark.parametrize("target", ["aarch64", "armv7", "riscv64"])
def test_other_machines(model: ir.Model, tmp_path: Path, target: str) -> None:
    found = find_target(target)
    if (reason := cannot_run(found) or missing_compiler(found.compiler)) is not None:
        pytest.skip(reason)
    api.export(model, tmp_path / "p", target, name="net", check=False)
    flags = [f"{tmp_path}/p/lib/libnet.a", "-static", "-pthread", "-lm"]
    program = build(tmp_path / "p", tmp_path, *flags, cc=found.compiler)
    require_same_results(model, tmp_path, [found.platform.emulator, "-cpu", found.emulated_cpu, program])


def test_a_microcontroller(model: ir.Model, tmp_path: Path) -> None:
    """No handles, no memory, no threads: what is missing is what a C library for it has."""
    target = find_target("cortex-m7")
    if (reason := missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    done = api.export(model, tmp_path, target.name, name="net", kind="object")
    assert done.verdict.passed
    assert done.verdict.where == "by the same kernels on this machine"
    assert "net_create" not in (tmp_path / "include" / "net.h").read_text()
    undefined = {line.split()[-1] for line in symbols(tmp_path / "lib" / "net.o", "-u").splitlines()}
    assert not {
        name for name in undefined if name.startswith(("pthread", "TVM", "graphopt", "malloc", "aligned"))
    }
    with pytest.raises(TargetError, match="has no shared libraries"):
        api.export(model, tmp_path, target.name, name="net", kind="library")
    with pytest.raises(TargetError, match="compile with --emit static or object"):
        api.build(model, tmp_path / "m.gopt", target.name)


def test_nothing_but_the_interface_can_be_seen(prefix: Path) -> None:
    defined = symbols(prefix / "lib" / "libnet.a", "-g", "--defined-only").split()
    names = {word for word in defined if word.startswith(("net_", "graphopt", "TVM", "__TVM"))}
    assert names == {
        f"net_{name}" for name in ("create", "destroy", "error_string", "execute", "input", "output", "run")
    }


def symbols(library: Path, *options: str) -> str:
    return subprocess.run(["nm", *options, library], check=True, capture_output=True, text=True).stdout


def test_several_models_in_one_program(model: ir.Model, prefix: Path, tmp_path: Path) -> None:
    api.export(
        make_model("g (float[4] a) => (float[4] b) { b = Neg(a) }"), tmp_path, name="other", check=False
    )
    (tmp_path / "both.c").write_text(
        """
        #include "net.h"
        #include "other.h"
        #include <stdio.h>
        int main(void) {
            net_model *net = net_create(NULL);
            other_model *other = other_create(&(other_options){.threads = 1});
            float a[4] = {1, 2, 3, 4}, b[4];
            const void *in[] = {a};
            void *out[] = {b};
            int error = other_execute(other, 0, in, out);
            printf("%d %g %s %d", error, b[3], other_error_string(OTHER_ERROR_MEMORY), net_input(1, 0) == NULL);
            net_destroy(net);
            other_destroy(other);
        }"""
    )
    command = [
        "cc",
        "-std=c11",
        *STRICT,
        f"-I{prefix}/include",
        f"-I{tmp_path}/include",
        f"{tmp_path}/both.c",
    ]
    command += [
        f"{prefix}/lib/libnet.a",
        f"{tmp_path}/lib/libother.a",
        "-pthread",
        "-lm",
        "-o",
        f"{tmp_path}/both",
    ]
    subprocess.run(command, check=True)
    result = subprocess.run([tmp_path / "both"], check=True, capture_output=True, text=True)
    assert result.stdout == "0 -4 the workspace could not be allocated 1"


def test_shape_variants_have_functions_of_their_own(tmp_path: Path) -> None:
    model = make_model("g (float[n] a) => (float[n] b) { b = Neg(a) }")
    api.export(model, tmp_path, name="net", dims={"n": [2, 5]}, kind="c-header")
    header = (tmp_path / "include" / "net.h").read_text()
    assert "int net_run(const float *a, float *b, void *workspace);" in header
    assert "int net_run_1(const float *a, float *b, void *workspace);" in header
    assert "#define NET_1_A_SIZE 5" in header
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["net.h", "net.hpp"]


def test_names_that_c_does_not_have(tmp_path: Path) -> None:
    """Nor those that the interface itself uses, as tensors and in several variants."""
    names = ("inputs", "outputs", "bits", "error", "catch", "x", "X", "x_1", "std")
    given = ", ".join(f"float[n] {name}" for name in names)
    text = f"g ({given}) => (float[n] sum) {{ sum = Sum({', '.join(names)}) }}"
    api.export(make_model(text), tmp_path / "p", name="net", dims={"n": [2, 3]}, check=False)
    (tmp_path / "main.cpp").write_text('#include "net.hpp"\nint main() { net::model model(1); }')
    command = ["c++", "-std=c++17", *STRICT, f"-I{tmp_path}/p/include", f"{tmp_path}/main.cpp"]
    subprocess.run([*command, f"{tmp_path}/p/lib/libnet.a", "-pthread", "-o", f"{tmp_path}/main"], check=True)


def test_names_that_comments_and_strings_do_not_have(tmp_path: Path) -> None:
    model = make_model("g (float[4] a) => (float[4] b) { b = Neg(a) }")
    model.graph.inputs[0].name, model.graph.outputs[0].name = '*/ "float\\', "größe\n"
    api.export(model, tmp_path, name="odd", kind="object", check=False)
    (tmp_path / "main.c").write_text(
        '#include "odd.h"\n#include <stdio.h>\nint main(void) { fputs(odd_input(0, 0)->name, stdout); fputs(odd_output(0, 0)->name, stdout); }'
    )
    command = [
        "cc",
        "-std=c11",
        *STRICT,
        f"-I{tmp_path}/include",
        f"{tmp_path}/main.c",
        f"{tmp_path}/lib/odd.o",
    ]
    subprocess.run([*command, "-pthread", "-lm", "-o", f"{tmp_path}/main"], check=True)
    done = subprocess.run([tmp_path / "main"], check=True, capture_output=True)
    assert done.stdout.decode() == '*/ "float\\größe\n'


def test_the_wrapper_for_cpp(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text(
        """
        #include "net.hpp"
        #include <array>
        #include <iostream>
        #include <vector>
        int main() {
            net::model first(2), model = std::move(first);
            std::vector<float> x(NET_X_SIZE, 1.0f), features(NET_FEATURES_SIZE);
            const std::array<int32_t, 1> scale{2};
            float y[NET_Y_SIZE];
            model.run(x, scale, y, features);
            try {
                model.run(std::vector<float>(3), scale, y, features);
            } catch (const std::invalid_argument &error) {
                std::cout << error.what();
            }
        }"""
    )
    command = ["c++", "-std=c++17", *STRICT, f"-I{prefix}/include", f"{tmp_path}/main.cpp"]
    command += [f"{prefix}/lib/libnet.a", "-pthread", "-o", f"{tmp_path}/main"]
    subprocess.run(command, check=True)
    result = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True)
    assert result.stdout == "x has 3 elements, the model takes 384"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.parametrize("kind", ["static", "library", "object"])
def test_cmake_finds_the_package(model: ir.Model, tmp_path: Path, kind: str) -> None:
    api.export(model, tmp_path / "p", name="net", kind=kind, check=False)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p C)\nfind_package(net CONFIG REQUIRED)\n"
        f'add_executable(program "{PROGRAM}")\ntarget_link_libraries(program PRIVATE net::net)\n'
    )
    configure = ["cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={tmp_path}/p"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "b"], check=True, capture_output=True)
    require_same_results(model, tmp_path, [tmp_path / "b" / "program"])


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
def test_pkg_config_finds_the_package(model: ir.Model, prefix: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "net"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"},
    )
    program = build(prefix, tmp_path, *found.stdout.split())
    require_same_results(model, tmp_path, [program])


def test_the_same_input_gives_the_same_files(model: ir.Model, prefix: Path, tmp_path: Path) -> None:
    api.export(model, tmp_path, name="net", check=False)
    for path in prefix.rglob("*.*"):
        assert (tmp_path / path.relative_to(prefix)).read_bytes() == path.read_bytes(), path


def test_what_cannot_be_is_refused(model: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(GraphoptError, match="'my net' is no name in C; 'my_net' would be one"):
        api.export(model, tmp_path, name="my net")
    with pytest.raises(GraphoptError, match="'shared' is no kind of export; choose one of static"):
        api.export(model, tmp_path, name="net", kind="shared")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pkgconfig").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        api.export(model, tmp_path, name="net", check=False)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["pkgconfig"]
