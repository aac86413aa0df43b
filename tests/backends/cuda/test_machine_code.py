"""What NVIDIA's compiler makes of the kernels, without a GPU."""

import re
import subprocess
from pathlib import Path

import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.nvcc import FLAGS, compile_cubins, find_nvcc
from graphopt.backends.cuda.source import cuda_source
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.lower.graph import lower_model
from graphopt.errors import TargetError
from tests.backends.cuda.test_operators import random
from tests.backends.lower.harness import Nodes, fixed

SPILLS = re.compile(r"(\d+) bytes spill stores")

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")


def source(arch: str) -> str:
    """The kernels of products of all kinds, a convolution, a softmax and a reduction."""
    nodes = Nodes()
    nodes.add("MatMul", random(1024, 64), fixed(random(64, 1024)))
    nodes.add("MatMul", random(3, 512), fixed(random(512, 70)))
    nodes.add("Conv", random(1, 32, 28, 28), fixed(random(64, 32, 3, 3)), pads=[1, 1, 1, 1])
    for rows in (2048, 512, 100):
        nodes.add("MatMul", random(rows, 64, dtype="float16"), random(64, 1024, dtype="float16"))
    nodes.add("Softmax", random(5, 700))
    nodes.add("ReduceMean", random(5, 700))
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, CORE, machine=GPU)])
    return cuda_source(functions, arch)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_kernels_keep_everything_in_registers(arch: str, tmp_path: Path) -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    (tmp_path / "kernels.cu").write_text(source(arch))
    command = [nvcc, *FLAGS, f"-arch={arch}", "-Xptxas=-v", "-o", "kernels.cubin", "kernels.cu"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    spills = [int(stored) for stored in SPILLS.findall(done.stderr)]
    assert len(spills) >= 8
    assert not any(spills)


def test_the_same_kernels_give_the_same_machine_code() -> None:
    text = source("sm_90")
    assert compile_cubins([text], "sm_90") == compile_cubins([text], "sm_90")


def test_what_the_compiler_refuses_is_told() -> None:
    with pytest.raises(TargetError, match=r"kernels\.cu"):
        compile_cubins(["not CUDA"], "sm_80")
