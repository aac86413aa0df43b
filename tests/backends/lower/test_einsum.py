"""Einsum: views, sums and products, compared with ONNX Runtime."""

import numpy as np
import pytest

from graphopt.backends.lower.einsum import parse
from graphopt.backends.lower.operator import Refused
from tests.backends.lower.harness import Nodes

RNG = np.random.default_rng(0)

EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij->ji", [(3, 5)]),
    ("ij->i", [(3, 50)]),
    ("...ii->...i", [(2, 4, 4)]),
    ("ij,jk", [(7, 5), (5, 18)]),
    ("ij,jk->ki", [(7, 5), (5, 18)]),
    ("bij,bjk->bik", [(2, 7, 5), (2, 5, 18)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 20, 16), (2, 3, 17, 16)]),
    ("bqhd,bkhd->bhqk", [(2, 20, 3, 16), (2, 17, 3, 16)]),
    ("bhqk,bkhd->bqhd", [(2, 3, 20, 17), (2, 17, 3, 16)]),
    ("abc,cde->bade", [(2, 3, 4), (4, 5, 6)]),
    ("abcd,cd->ab", [(2, 3, 4, 5), (4, 5)]),
    ("i,j->ij", [(3,), (5,)]),
    ("ij,ij->ij", [(3, 5), (3, 5)]),
    ("bij,bij->b", [(3, 5, 4), (3, 5, 4)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (2, 5, 4, 6)]),
    ("ij,jk,kl->il", [(3, 4), (4, 5), (5, 6)]),
    ("ij,k->jk", [(3, 4), (5,)]),
    ("i,i", [(40,), (40,)]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_equations(dtype: str) -> None:
    nodes = Nodes()
    for equation, shapes in EQUATIONS:
        operands = [(RNG.standard_normal(shape) * 5).astype(dtype) for shape in shapes]
        product = nodes.add("Einsum", *operands, equation=equation)
        nodes.add("Neg", product)
    nodes.check()


def test_results_without_axes() -> None:
    nodes = Nodes()
    nodes.add("Einsum", np.float32(3).reshape(()), equation="->")
    nodes.add("Einsum", RNG.standard_normal((4, 4)).astype(np.float32), equation="ii->")
    nodes.check_with_reference()


def test_labels_of_an_ellipsis_align_at_the_right() -> None:
    inputs, result = parse("...ij, ...jk", [4, 3])
    assert inputs == [(".1", ".0", "i", "j"), (".0", "j", "k")]
    assert result == (".1", ".0", "i", "k")


@pytest.mark.parametrize(("equation", "ranks"), [("ij,jk->ik", [2]), ("ij->i", [3]), ("ijk->i", [2])])
def test_equations_that_do_not_fit_are_refused(equation: str, ranks: list[int]) -> None:
    with pytest.raises(Refused):
        parse(equation, ranks)
