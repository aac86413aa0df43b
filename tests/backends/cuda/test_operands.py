"""How operands of products come into shared memory."""

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tvm import tirx

from graphopt import model as models
from graphopt.backends.codegen.llvm import distinct_kernels
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.operands import source_of
from graphopt.backends.cuda.source import cuda_source
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import TARGETS, Target
from tests.backends.cuda.test_operators import random
from tests.backends.lower.harness import Nodes, fixed


def element(dtype: str = "float32") -> Any:
    return tirx.BufferLoad(tirx.decl_buffer((8,), dtype), [tirx.Var("i", "int32")])


def where(condition: Any, value: Any, otherwise: float = 0.0) -> Any:
    return tirx.op.if_then_else(condition, value, tirx.const(otherwise, "float32"))


def copies(nodes: Nodes) -> set[str]:
    """The instructions that copy, in kernels that multiply."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    _, functions = distinct_kernels([lower_model(model, TARGETS["cuda:sm_90"].core, machine=GPU)])
    text = cuda_source(functions, "sm_90")
    return set(re.findall(r"graphopt_copy\d+(?=\(\(&\(shared)", text))


def test_what_is_only_read_is_copied() -> None:
    i = tirx.Var("i", "int32")
    _, exists = source_of(element())
    assert int(exists) == 1
    _, exists = source_of(where(i < 3, where(i > 1, element())))
    assert {str(v) for v in tirx.analysis.undefined_vars(exists, [])} == {str(i)}


def test_what_is_computed_or_not_zero_elsewhere_or_small_is_not_copied() -> None:
    i = tirx.Var("i", "int32")
    assert source_of(element() * 2.0) is None
    assert source_of(where(i < 3, element(), 1.0)) is None
    assert source_of(element("float16")) is None


def test_what_is_read_to_know_where_is_not_copied_under_conditions() -> None:
    table, places = (tirx.decl_buffer((8,), dtype) for dtype in ("float32", "int32"))
    i = tirx.Var("i", "int32")
    found = tirx.BufferLoad(table, [tirx.BufferLoad(places, [i])])
    assert source_of(found) is not None
    assert source_of(where(i < 3, found)) is None


def test_neighbours_along_columns_are_copied_together() -> None:
    nodes = Nodes()
    nodes.add("MatMul", random(40, 64), fixed(random(64, 128)))
    assert copies(nodes) == {"graphopt_copy4", "graphopt_copy16"}
    odd = Nodes()
    odd.add("MatMul", random(40, 64), fixed(random(64, 127)))
    assert copies(odd) == {"graphopt_copy4"}


def test_operands_that_are_widened_go_through_registers() -> None:
    nodes = Nodes()
    nodes.add("MatMul", random(40, 63, dtype="float16"), random(63, 30, dtype="float16"))
    assert copies(nodes) == set()


@pytest.mark.parametrize("depth", [1, 8, 17, 200])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_few_and_many_steps(gpu: Target, depth: int, dtype: str) -> None:
    nodes = Nodes()
    for rows, columns in ((3, 5), (130, 68), (16, 128)):
        nodes.add("MatMul", random(rows, depth, dtype=dtype), random(depth, columns, dtype=dtype))
    nodes.add(
        "MatMul", random(33, depth, dtype=dtype), np.ascontiguousarray(random(60, depth, dtype=dtype)).T
    )
    nodes.check(gpu)
