"""What NVIDIA's compiler makes of the kernels, without a GPU."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.nvcc import FLAGS, code_for, compile_cubins, find_nvcc, package_folders
from graphopt.backends.cuda.source import cuda_source
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.schedules import tensor_product
from graphopt.backends.schedules.workload import Config
from graphopt.backends.targets import TARGETS
from graphopt.errors import TargetError
from graphopt.passes.precision import BFLOAT16_EVERYWHERE, TF32_EVERYWHERE, Half, Precision
from graphopt.rewriting.pipeline import Context
from tests.backends.cuda.test_bytes import add_convolution, add_product, integers
from tests.backends.cuda.test_operators import random
from tests.backends.lower.harness import Nodes, fixed
from tests.conftest import make_model

SPILLS = re.compile(r"(\d+) bytes spill stores")

SERIAL = "C7510"
"""The warning that sums of `wgmma` are moved while it runs, so that every one is waited for."""

LOCAL_MEMORY = re.compile(r"\b(LDL|STL)\b")
WHOLE_READ, WHOLE_WRITE = re.compile(r"\bLDG\.E\.128\b"), re.compile(r"\bSTG\.E\.128\b")
SHARED = re.compile(r"\b(?:STS|LDS)[.0-9]*\b")
READ, WRITE = re.compile(r"\bLDG\b"), re.compile(r"\bSTG\b")

UNITS = {"sm_80": "HMMA", "sm_90": "HGMMA"}
BYTE_UNITS = {"sm_80": "IMMA", "sm_90": "IGMMA"}
"""The instructions by which floats and bytes are multiplied."""

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")


def half(*shape: int) -> np.ndarray:
    return random(*shape, dtype="float16")


def source(arch: str) -> str:
    """The kernels of products and convolutions of all kinds, attention, a softmax and a reduction."""
    nodes = Nodes(opset=23)
    nodes.add("MatMul", random(1024, 64), fixed(random(64, 1024)))
    nodes.add("MatMul", random(3, 512), fixed(random(512, 70)))
    nodes.add("Conv", random(1, 32, 28, 28), fixed(random(64, 32, 3, 3)), pads=[1, 1, 1, 1])
    for rows in (2048, 512, 100):
        nodes.add("MatMul", random(rows, 64, dtype="float16"), random(64, 1024, dtype="float16"))
    for shape in ((4096, 512, 4096), (128, 768, 768)):
        rows, depth, columns = shape
        nodes.add("MatMul", half(rows, depth), fixed(half(depth, columns)))
    nodes.add("Conv", half(1, 64, 28, 28), fixed(half(64, 64, 3, 3)), pads=[1, 1, 1, 1])
    nodes.add("Conv", half(1, 64, 28, 28), fixed(half(64, 1, 3, 3)), group=64)
    for shape in ((1, 4, 128, 64), (8, 12, 197, 64), (1, 16, 600, 64)):
        nodes.add("Attention", *[half(*shape)] * 3)
    nodes.add("Attention", *[random(8, 12, 197, 64)] * 3)
    nodes.add("Softmax", random(5, 700))
    nodes.add("ReduceMean", random(5, 700))
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, TARGETS[f"cuda:{arch}"].core, machine=GPU)])
    return cuda_source(functions, arch)


def rounded_source(arch: str, half: Half) -> str:
    """Products of all tiles, a convolution, and attention where the precision has it."""
    text = """g (float[4096,512] a, float[128,768] b, float[1,64,28,28] c, float[1,4,128,64] d) =>
        (float[4096,4096] p, float[128,768] q, float[128,3072] r, float[1,64,28,28] s, float[1,4,128,64] t) {
        p = MatMul(a, u) q = MatMul(b, v) r = MatMul(b, w) s = Conv<pads=[1,1,1,1]>(c, x) t = Attention(d, d, d) }"""
    shapes = {"u": (512, 4096), "v": (768, 768), "w": (768, 3072), "x": (64, 64, 3, 3)}
    model = make_model(text, 23, **{name: random(*shape) for name, shape in shapes.items()})
    models.normalise(model)
    Precision(half=half).apply(model, Context())
    _, functions = distinct_kernels([lower_model(model, TARGETS[f"cuda:{arch}"].core, machine=GPU)])
    return cuda_source(functions, arch)


def byte_source(arch: str) -> str:
    """Products and convolutions of bytes."""
    nodes = Nodes()
    for rows, depth, columns in ((4096, 512, 4096), (128, 768, 768), (128, 768, 3072)):
        add_product(nodes, integers(np.uint8, rows, depth), integers(np.int8, depth, columns), 9)
    add_product(nodes, integers(np.int8, 128, 768), integers(np.int8, 768, 768), 9)
    add_convolution(
        nodes, integers(np.uint8, 1, 64, 28, 28), integers(np.int8, 64, 64, 3, 3), 3, pads=[1, 1, 1, 1]
    )
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, TARGETS[f"cuda:{arch}"].core, machine=GPU)])
    return cuda_source(functions, arch)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("make", "least", "units"),
    [
        pytest.param(source, 12, UNITS, id="as they are"),
        pytest.param(byte_source, 5, BYTE_UNITS, id="int8"),
        pytest.param(partial(rounded_source, half=BFLOAT16_EVERYWHERE), 6, UNITS, id="bf16"),
        pytest.param(partial(rounded_source, half=TF32_EVERYWHERE), 6, UNITS, id="tf32"),
    ],
)
def test_kernels_keep_everything_in_registers(
    arch: str, make: Callable[[str], str], least: int, units: dict[str, str], tmp_path: Path
) -> None:
    assert compile_without_spills(make(arch), arch, tmp_path) >= least
    check_instructions(tmp_path / "kernels.cubin", units[arch])


def compile_without_spills(text: str, arch: str, folder: Path) -> int:
    """The number of kernels."""
    nvcc = find_nvcc()
    assert nvcc is not None
    (folder / "kernels.cu").write_text(text)
    command = [nvcc, *FLAGS, *code_for(arch), "-Xptxas=-v", "-o", "kernels.cubin", "kernels.cu"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    spills = [int(stored) for stored in SPILLS.findall(done.stderr)]
    assert not any(spills)
    assert SERIAL not in done.stderr
    return len(spills)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("along_depth", [True, False])
def test_tiles_to_be_measured_keep_everything_in_registers(
    arch: str, along_depth: bool, tmp_path: Path
) -> None:
    core = TARGETS[f"cuda:{arch}"].core
    workload = tensor_product.workload(Extents(1, 1000, 1000, 512), 2, along_depth)
    shapes: dict[tuple[int | str, ...], Config] = {}
    for _, config in tensor_product.candidates(workload, core):
        if config["parts"] == 1:
            shapes.setdefault(
                tuple(config[name] for name in ("rows", "columns", "warp_rows", "warp_columns")), config
            )
    programs = [tensor_product.standalone(workload, config, core).program for config in shapes.values()]
    _, functions = distinct_kernels(programs)
    assert compile_without_spills(cuda_source(functions, arch), arch, tmp_path) == len(shapes) > 20


def check_instructions(cubin: Path, unit: str) -> None:
    """Products are multiplied by the unit, and nothing goes through local memory."""
    found = disassembled(cubin)
    assert sum(unit in text for text in found.values()) >= 3
    assert not [name for name, text in found.items() if LOCAL_MEMORY.search(text)]


def disassembled(cubin: Path) -> dict[str, str]:
    """The instructions of every function."""
    places = [*package_folders(), os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    tool = shutil.which("cuobjdump", path=os.pathsep.join(places))
    if tool is None:
        pytest.skip("cuobjdump is not installed; registers and spills were checked")
    listing = subprocess.run([tool, "-sass", str(cubin)], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"Function : (\S+)", listing)
    return dict(zip(names, listing.split("Function : ")[1:], strict=True))


def test_the_same_kernels_give_the_same_machine_code() -> None:
    text = source("sm_90")
    assert compile_cubins([text], "sm_90") == compile_cubins([text], "sm_90")


def test_what_the_compiler_refuses_is_told() -> None:
    with pytest.raises(TargetError, match=r"kernels\.cu"):
        compile_cubins(["not CUDA"], "sm_80")


def memory_bound() -> Nodes:
    """Kernels that only move elements of tensors that are large enough for runs."""
    nodes = Nodes(opset=23)
    x = half(1024, 1024)
    nodes.add("Relu", nodes.add("Add", x, half(1024, 1024)))
    nodes.add("Gelu", nodes.add("Add", random(1024, 1024), random(1024)))
    nodes.add("Transpose", half(64, 8, 16, 64), perm=[0, 2, 1, 3])
    nodes.add("LayerNormalization", x, fixed(half(1024)), fixed(half(1024)))
    nodes.add("Softmax", half(1024, 512))
    nodes.add("MatMul", half(1024, 64), fixed(half(64, 1024)))
    images = nodes.add("Conv", half(8, 64, 56, 56), fixed(half(64, 1, 3, 3)), group=64, pads=[1, 1, 1, 1])
    nodes.add("MaxPool", images, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    nodes.add("Conv", half(8, 64, 56, 56), fixed(half(64, 1, 3, 3)), group=64, pads=[1, 1, 1, 1])
    for dtype in ("float16", "float32"):
        nodes.add("Transpose", random(1024, 1024, dtype=dtype))
        nodes.add("Relu", nodes.add("Transpose", random(8, 64, 56, 56, dtype=dtype), perm=[0, 2, 3, 1]))
    return nodes


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_neighbours_are_read_and_written_together(arch: str, tmp_path: Path) -> None:
    """Every access of 16 bytes, to shared memory too, but for writes of tiles that are few."""
    found = machine_code(memory_bound(), arch, tmp_path)
    assert len(found) >= 13
    assert sum("STS" in listing for listing in found.values()) >= 5
    for name, listing in found.items():
        assert not LOCAL_MEMORY.search(listing), name
        if "copy" in name or "pool" in name:
            assert set(SHARED.findall(listing)) <= {"STS.128", "STS.64", "LDS.128"}, name
        if "gemm" not in name:
            assert len(WHOLE_READ.findall(listing)) == len(READ.findall(listing)), name
        assert len(WHOLE_WRITE.findall(listing)) == len(WRITE.findall(listing)) > 0, name


def test_odd_rows_are_read_and_written_one_by_one(tmp_path: Path) -> None:
    nodes = Nodes()
    nodes.add("Relu", half(1023, 1023))
    nodes.add("Softmax", half(1023, 511))
    for name, listing in machine_code(nodes, "sm_90", tmp_path).items():
        assert READ.search(listing), name
        assert not WHOLE_READ.search(listing), name
        assert not WHOLE_WRITE.search(listing), name


def machine_code(nodes: Nodes, arch: str, folder: Path) -> dict[str, str]:
    """The instructions of every kernel of a model."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, TARGETS[f"cuda:{arch}"].core, machine=GPU)])
    (cubin,) = compile_cubins([cuda_source(functions, arch)], arch)
    (folder / "kernels.cubin").write_bytes(cubin)
    return disassembled(folder / "kernels.cubin")
