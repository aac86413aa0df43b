"""Attention written as MatMul, Softmax and MatMul: where it becomes one kernel, where it must not, and its results."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import model as models
from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import TARGETS
from tests.backends.lower.harness import Nodes, fixed

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def kernels(nodes: Nodes) -> list[str]:
    """The kernels of a model, in order."""
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    return [kernel.name for kernel in lower_model(model, AVX512).kernels()]


def plain(queries: int, keys: int, size: int, value_size: int, batch: tuple[int, ...] = (2, 3)) -> Nodes:
    nodes = Nodes()
    scores = nodes.add("MatMul", normal(*batch, queries, size), normal(*batch, size, keys))
    nodes.add("MatMul", nodes.add("Softmax", scores, axis=-1), normal(*batch, keys, value_size))
    return nodes


@pytest.mark.parametrize(
    ("queries", "keys", "size", "value_size"),
    [(8, 32, 8, 8), (13, 37, 33, 17), (29, 50, 64, 64), (64, 129, 32, 40), (197, 197, 64, 64)],
)
@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
def test_shapes(queries: int, keys: int, size: int, value_size: int, target: str) -> None:
    nodes = plain(queries, keys, size, value_size)
    assert kernels(nodes) == ["attention"]
    nodes.check(TARGETS[target])


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 1, 3)])
def test_batches(batch: tuple[int, ...]) -> None:
    nodes = plain(20, 40, 16, 24, batch)
    assert kernels(nodes) == ["attention"]
    nodes.check()


def test_operands_that_broadcast() -> None:
    nodes = Nodes()
    scores = nodes.add("MatMul", normal(3, 20, 16), normal(2, 1, 16, 40))
    nodes.add("MatMul", nodes.add("Softmax", scores), normal(40, 24))
    assert kernels(nodes) == ["attention"]
    nodes.check()


def test_values_of_more_batches_than_the_scores() -> None:
    nodes = Nodes()
    scores = nodes.add("Add", nodes.add("MatMul", normal(20, 16), normal(16, 40)), normal(1, 40))
    nodes.add("MatMul", nodes.add("Softmax", scores), normal(3, 40, 24))
    nodes.check()


def test_elementwise_operators_everywhere() -> None:
    """Scaled and masked scores, dropped weights, gated results; heads split from and joined to rows."""
    batch, heads, steps, size = 2, 3, 40, 16
    nodes = Nodes()

    def split(order: list[int]) -> str:
        rows = nodes.add("Mul", normal(batch, steps, heads * size), fixed(np.array(0.5, np.float32)))
        parts = nodes.add("Reshape", rows, fixed(np.array([batch, steps, heads, size])))
        return nodes.add("Transpose", parts, perm=order)

    query, key, value = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = nodes.add("Div", nodes.add("MatMul", query, key), fixed(np.array(4.0, np.float32)))
    mask = np.where(RNG.random((batch, 1, 1, steps)) < 0.3, -1e9, 0).astype(np.float32)
    weights = nodes.add("Softmax", nodes.add("Add", scores, mask), axis=3)
    kept = nodes.add("Mul", weights, (RNG.random((batch, heads, steps, steps)) < 0.9).astype(np.float32))
    result = nodes.add("Mul", nodes.add("MatMul", kept, value), normal(1, heads, 1, size))
    joined = nodes.add("Transpose", result, perm=[0, 2, 1, 3])
    nodes.add("Reshape", joined, fixed(np.array([batch, steps, heads * size])))
    assert kernels(nodes).count("attention") == 1
    assert not {"softmax", "gemm"} & set(kernels(nodes))
    nodes.check()


def test_masks_of_infinities() -> None:
    """A row without anything to attend to is not a number, as in the reference."""
    nodes = Nodes()
    mask = np.triu(np.full((20, 40), -np.inf, np.float32), 21)
    mask[3] = -np.inf
    scores = nodes.add("Add", nodes.add("MatMul", normal(2, 20, 16), normal(2, 16, 40)), mask)
    nodes.add("MatMul", nodes.add("Softmax", scores), normal(2, 40, 24))
    assert kernels(nodes) == ["attention"]
    nodes.check()


def test_large_scores_do_not_overflow() -> None:
    nodes = Nodes()
    scores = nodes.add("MatMul", 100 * normal(2, 20, 16), normal(2, 16, 40))
    nodes.add("MatMul", nodes.add("Softmax", scores), normal(2, 40, 24))
    nodes.check()


def test_values_that_come_later_are_brought_forward() -> None:
    nodes = Nodes()
    scores = nodes.add("MatMul", normal(2, 20, 16), normal(2, 16, 40))
    weights = nodes.add("Softmax", scores)
    late = nodes.add("MatMul", nodes.add("Relu", normal(2, 40, 8)), normal(2, 8, 24))
    nodes.add("MatMul", weights, late)
    assert kernels(nodes) == ["pointwise", "gemm", "attention"]
    nodes.check()


def values_from_scores(nodes: Nodes, scores: str) -> None:
    total = nodes.add("ReduceSum", scores, fixed(np.array([1])), keepdims=1)
    values = nodes.add("Transpose", nodes.add("Mul", total, normal(2, 24, 1)), perm=[0, 2, 1])
    nodes.add("MatMul", nodes.add("Softmax", scores), values)


REFUSED: dict[str, Callable[[Nodes, str], object]] = {
    "another reader of the scores": lambda n, s: (
        n.add("MatMul", n.add("Softmax", s), normal(2, 40, 24)),
        n.add("ReduceMax", s),
    ),
    "softmax along another axis": lambda n, s: n.add(
        "MatMul", n.add("Softmax", s, axis=1), normal(2, 40, 24)
    ),
    "weights as the right operand": lambda n, s: n.add("MatMul", normal(2, 24, 20), n.add("Softmax", s)),
    "no second product": lambda n, s: n.add("Relu", n.add("Softmax", s)),
    "a logarithm": lambda n, s: n.add("MatMul", n.add("LogSoftmax", s), normal(2, 40, 24)),
    "values that depend on the scores": values_from_scores,
    "half precision": lambda n, s: n.add(
        "MatMul", n.add("Softmax", n.add("Cast", s, to=10)), normal(2, 40, 24).astype(np.float16)
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_fused(case: str) -> None:
    nodes = Nodes()
    REFUSED[case](nodes, nodes.add("MatMul", normal(2, 20, 16), normal(2, 16, 40)))
    assert "attention" not in kernels(nodes)
    if case != "half precision":
        nodes.check()


@pytest.mark.parametrize("shape", [(7, 40, 16, 24), (20, 31, 16, 24), (20, 40, 7, 24), (20, 40, 16, 7)])
def test_small_ones_are_not_fused(shape: tuple[int, int, int, int]) -> None:
    nodes = plain(*shape)
    assert "attention" not in kernels(nodes)
    nodes.check()


def test_rows_that_are_too_long_are_not_fused() -> None:
    assert "attention" not in kernels(plain(16, 20_000, 64, 64, (1,)))
    assert "attention" in kernels(plain(16, 4_000, 64, 64, (1,)))
