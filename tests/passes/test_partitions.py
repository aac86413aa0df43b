"""Pieces of a Concat are its operands, where they are exactly those."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import infer_shapes
from graphopt.passes.cleanup import Cleanup
from tests.conftest import apply_and_check, make_model, ops


def sliced(
    start: int, end: int, axis: int = 1, step: int = 1, sizes: str = "float[2,3] a, float[2,5] b"
) -> ir.Model:
    size = len(range(8)[start:end:step]) if axis in (1, -1) else 1
    rows = 2 if axis in (1, -1) else 1
    graph = make_model(
        f"""agraph ({sizes}) => (float[{rows},{size if axis in (1, -1) else 8}] y) {{
            c = Concat<axis = 1>(a, b) y = Slice(c, start, end, axis, step) }}""",
        start=np.array([start]),
        end=np.array([end]),
        axis=np.array([axis]),
        step=np.array([step]),
    )
    infer_shapes(graph)
    return graph


@pytest.mark.parametrize(("start", "end", "axis"), [(0, 3, 1), (3, 8, -1), (-5, 2**62, 1)])
def test_a_slice_that_is_an_operand(start: int, end: int, axis: int) -> None:
    graph = sliced(start, end, axis)
    assert apply_and_check(Cleanup(), graph).applied["slice of a concat"] == 1
    assert ops(graph) == {"Identity": 1}


@pytest.mark.parametrize(
    ("start", "end", "axis", "step"), [(0, 4, 1, 1), (1, 8, 1, 1), (0, 3, 1, 2), (0, 1, 0, 1)]
)
def test_another_slice_stays(start: int, end: int, axis: int, step: int) -> None:
    graph = sliced(start, end, axis, step)
    apply_and_check(Cleanup(), graph)
    assert ops(graph) == {"Concat": 1, "Slice": 1}


def split(sizes: list[int], axis: int = 1) -> ir.Model:
    graph = make_model(
        f"""agraph (float[2,3] a, float[2,5] b) => (float[2,{sizes[0]}] y, float[2,{sizes[1]}] z) {{
            c = Concat<axis = 1>(a, b) p, q = Split<axis = {axis}>(c, sizes) y = Neg(p) z = Neg(q) }}""",
        sizes=np.array(sizes),
    )
    infer_shapes(graph)
    return graph


def test_a_split_into_the_operands() -> None:
    graph = split([3, 5], -1)
    assert apply_and_check(Cleanup(), graph).applied["split of a concat"] == 1
    assert ops(graph) == {"Neg": 2}


def test_another_split_stays() -> None:
    assert not apply_and_check(Cleanup(), split([4, 4])).modified


@pytest.mark.parametrize(
    ("condition", "left"), [([True, True], {"Neg": 1}), ([True, False], {"Neg": 1, "Where": 1})]
)
def test_where_is_decided_by_a_condition_that_is_the_same_everywhere(
    condition: list[bool], left: dict[str, int]
) -> None:
    graph = make_model(
        "agraph (float[2,2] x, float[2,2] z) => (float[2,2] y) { a = Where(c, x, z) y = Neg(a) }",
        c=np.array(condition),
    )
    infer_shapes(graph)
    apply_and_check(Cleanup(), graph)
    assert ops(graph) == left


def test_a_decided_where_that_broadcasts_stays() -> None:
    text = "agraph (float[1,2] x, float[2,2] z) => (float[2,2] y) { a = Where(c, x, z) y = Neg(a) }"
    graph = make_model(text, c=np.array([True]))
    infer_shapes(graph)
    assert not apply_and_check(Cleanup(), graph).modified
