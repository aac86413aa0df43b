"""The text of kernels: where they wait for those before them, and which blocks see each other's shared memory."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.source import cuda_source
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import TARGETS
from tests.backends.cuda.test_operators import random
from tests.backends.lower.harness import Nodes, fixed

CLUSTER = "__cluster_dims__(4, 1, 1)"
BEGIN = "graphopt_begin()"


def halves(*shape: int) -> np.ndarray:
    return random(*shape, dtype="float16")


def bodies(nodes: Nodes, arch: str) -> list[str]:
    """What every kernel does, its name before it."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, TARGETS[f"cuda:{arch}"].core, machine=GPU)])
    text = cuda_source(functions, arch)
    return re.findall(r"__global__ void ([^;{]*\{.*?^\})$", text, re.DOTALL | re.MULTILINE)


def test_kernels_wait_at_once() -> None:
    nodes = Nodes()
    nodes.add("Relu", random(100))
    (body,) = bodies(nodes, "sm_90")
    assert body.split("\n")[1].strip() == BEGIN + ";"


@pytest.mark.parametrize(("arch", "count"), [("sm_90", 1), ("sm_80", 0)])
def test_parts_of_the_depth_are_a_cluster(arch: str, count: int) -> None:
    nodes = Nodes()
    nodes.add("Conv", halves(8, 512, 7, 7), fixed(halves(512, 512, 3, 3)), pads=[1, 1, 1, 1])
    found = [body for body in bodies(nodes, arch) if "conv" in body.split("(")[0] or CLUSTER in body]
    assert sum(CLUSTER in body for body in found) == count
    assert all(body.count("graphopt_meet()") == 2 * (CLUSTER in body) for body in found)
