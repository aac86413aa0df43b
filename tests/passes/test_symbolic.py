"""Arithmetic on sizes that are not known yet never claims more than is true."""

import numpy as np
import pytest

from graphopt.passes.symbolic import UNKNOWN, Symbol, Unknown, evaluate_symbolic, is_known, to_dims
from tests.conftest import make_model

N, M = Symbol("N"), Symbol("M")


def evaluated(op: str, *operands: object) -> list:
    names = "abc"[: len(operands)]
    inputs = ", ".join(f"int64[1] {name}" for name in names)
    model = make_model(f"agraph ({inputs}) => (int64[1] y) {{ y = {op}({', '.join(names)}) }}")
    arrays = []
    for operand in operands:
        array = np.empty(1, dtype=object)
        array[0] = operand
        arrays.append(array)
    results = evaluate_symbolic(model.graph[0], arrays)
    assert results is not None
    return results[0].tolist()


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("Add", (N, 0), N),
        ("Add", (2, 3), 5),
        ("Sub", (N, N), 0),
        ("Sub", (N, 0), N),
        ("Mul", (1, N), N),
        ("Mul", (N, 0), 0),
        ("Div", (N, 1), N),
        ("Div", (-7, 2), -3),
        ("Equal", (N, -1), False),
        ("Equal", (N, N), True),
        ("Equal", (3, 3), True),
        ("Where", (True, N, M), N),
        ("Where", (UNKNOWN, N, N), N),
        ("Max", (N, N), N),
        ("Min", (2, 3), 2),
        ("Neg", (4,), -4),
    ],
)
def test_what_is_certain(op: str, operands: tuple, expected: object) -> None:
    assert evaluated(op, *operands) == [expected]


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        ("Sub", (N, M)),
        ("Sub", (N, 1)),
        ("Add", (N, -1)),
        ("Add", (N, UNKNOWN)),
        ("Div", (N, 2)),
        ("Div", (N, 0)),
        ("Div", (4, 0)),
        ("Mul", (N, -1)),
        ("Equal", (N, 3)),
        ("Equal", (N, M)),
        ("Equal", (UNKNOWN, UNKNOWN)),
        ("Where", (UNKNOWN, N, M)),
        ("Max", (N, 1)),
        ("Less", (N, 3)),
        ("Neg", (N,)),
    ],
)
def test_what_is_not_known(op: str, operands: tuple) -> None:
    assert isinstance(evaluated(op, *operands)[0], Unknown)


def test_sums_and_products_are_the_same_in_either_order() -> None:
    assert evaluated("Mul", N, M) == evaluated("Mul", M, N)
    assert evaluated("Add", N, 2) == evaluated("Add", 2, N)
    assert evaluated("Add", N, 2) != evaluated("Mul", N, 2)


def test_unknown_entries_become_free_dimensions() -> None:
    array = np.array([2, N, UNKNOWN, -1], dtype=object)
    assert to_dims(array.tolist()) == [2, "N", None, None]
    assert not is_known(array)
    assert is_known(array[:1])
