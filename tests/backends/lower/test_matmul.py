"""MatMul and Gemm in every form their operands can take."""

import numpy as np
import pytest

from graphopt.backends.targets import TARGETS
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)

SHAPES = [
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((5,), (4, 5, 3)),
    ((7, 5), (5,)),
    ((3, 7, 5), (5,)),
    ((7, 5), (5, 40)),
    ((1, 300), (300, 10)),
    ((1, 70), (70, 1000)),
    ((2, 1, 33), (33, 17)),
    ((2, 3, 20, 33), (33, 17)),
    ((2, 3, 20, 33), (2, 3, 33, 17)),
    ((2, 1, 20, 33), (3, 33, 1)),
    ((20, 33), (4, 33, 18)),
    ((1, 1, 6), (2, 6, 6)),
    ((4, 0), (0, 3)),
    ((0, 4), (4, 3)),
    ((13, 100), (100, 149)),
]


def normal(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    values = RNG.standard_normal(shape) if dtype.startswith("float") else RNG.integers(0, 9, shape)
    return values.astype(dtype)


@pytest.mark.parametrize("is_fixed", [False, True], ids=["dynamic", "constant"])
def test_shapes(is_fixed: bool) -> None:
    nodes = Nodes()
    for left, right in SHAPES:
        operand = normal(right)
        nodes.add("MatMul", normal(left), fixed(operand) if is_fixed else operand)
    nodes.check()


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "uint32", "uint64"])
def test_dtypes(dtype: str) -> None:
    nodes = Nodes()
    for left, right in [((3, 20, 33), (33, 17)), ((2, 20, 33), (2, 33, 17)), ((1, 40), (40, 1))]:
        nodes.add("MatMul", normal(left, dtype), normal(right, dtype))
        nodes.add("MatMul", normal(left, dtype), fixed(normal(right, dtype)))
    nodes.check()


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(17, 48, 64), (20, 37, 33), (1, 50, 70), (2, 2, 5)])
def test_transposed_operands(rows: int, columns: int, depth: int, target: str) -> None:
    nodes = Nodes()
    heads = nodes.add("Transpose", normal((2, columns, 3, depth)), perm=[0, 2, 3, 1])
    nodes.add("MatMul", normal((2, 3, rows, depth)), heads)
    left = nodes.add("Transpose", normal((depth, rows)), perm=[1, 0])
    nodes.add("MatMul", left, normal((depth, columns)))
    nodes.check(TARGETS[target])


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("is_fixed", [False, True], ids=["dynamic", "constant"])
def test_gemm(transposed: tuple[int, int], is_fixed: bool) -> None:
    a, b = transposed
    hold = fixed if is_fixed else np.asarray
    nodes = Nodes()
    for m, k, n in [(1, 300, 10), (20, 33, 17), (7, 5, 1)]:
        left, right = normal((k, m) if a else (m, k)), normal((n, k) if b else (k, n))
        nodes.add("Gemm", left, hold(right), transA=a, transB=b)
        for bias in [(m, n), (n,), (1, n), (m, 1), (1,), ()]:
            nodes.add("Gemm", left, hold(right), hold(normal(bias)), transA=a, transB=b, alpha=0.5, beta=-2.0)
    nodes.check()


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_gemm_dtypes(dtype: str) -> None:
    nodes = Nodes()
    nodes.add("Gemm", normal((9, 20), dtype), fixed(normal((20, 18), dtype)), normal((18,), dtype), alpha=0.5)
    nodes.check()


def test_zero_beta_ignores_the_addend() -> None:
    nodes = Nodes()
    nodes.add("Gemm", normal((3, 4)), normal((4, 5)), np.full((5,), np.nan, np.float32), beta=0.0)
    nodes.check()


def test_following_nodes_are_computed_in_the_kernel() -> None:
    nodes = Nodes()
    product = nodes.add("MatMul", normal((4, 20, 33)), fixed(normal((33, 17))))
    total = nodes.add("Add", product, fixed(normal((17,))))
    nodes.add("Mul", nodes.add("Relu", total), normal((4, 20, 17)))
    vector = nodes.add("MatMul", normal((33,)), fixed(normal((33, 17))))
    nodes.add("Relu", nodes.add("Add", vector, fixed(normal((17,)))))
    nodes.check()


def test_a_padded_value_is_no_part_of_an_epilogue() -> None:
    """Its elements are read under a condition, which the vectors of a product cannot be computed under."""
    nodes = Nodes()
    padded = nodes.add("Pad", RNG.standard_normal((6, 6)).astype(np.float32), fixed(np.array([1, 1, 1, 1])))
    addend = nodes.add("Relu", padded)
    left = RNG.standard_normal((8, 8)).astype(np.float32)
    weights = fixed(RNG.standard_normal((8, 8)).astype(np.float32))
    nodes.add("Add", nodes.add("MatMul", left, weights), addend)
    nodes.check()
