"""Activations whose results are rounded to halves, over all halves."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from scipy.special import expit, ndtr, softmax

from graphopt import model as models
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import random
from tests.backends.cuda.test_runs import text
from tests.backends.lower.harness import Nodes, compiled

ALLOWED = 0.51
"""Of a half's last place, of which rounding alone takes up to 0.5."""

PLACES, SMALLEST_NORMAL = 10, 2.0**-14
"""Of halves: binary places of a significand."""

COARSE = "graphopt_power("

EXACT = {
    "Gelu": lambda x: x * ndtr(x),
    "Sigmoid": expit,
    "Swish": lambda x: x * expit(x),
}


def all_halves() -> np.ndarray:
    """Every finite one."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return halves[np.isfinite(halves)]


def results(gpu: Target, op: str, x: np.ndarray, **attributes: str) -> np.ndarray:
    nodes = Nodes(opset=24)
    nodes.add(op, x, **attributes)
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    (found,) = compiled(model, nodes.feeds, gpu)
    return found.astype(np.float64)


def in_last_places(errors: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the last place of halves."""
    exponents = np.floor(np.log2(np.maximum(np.abs(exact), SMALLEST_NORMAL)))
    return errors / 2.0 ** (exponents - PLACES)


@pytest.mark.parametrize("op", EXACT)
def test_halves_are_rounded_from_what_is_nearly_exact(gpu: Target, op: str) -> None:
    x = all_halves()
    exact = EXACT[op](x.astype(np.float64))
    errors = np.abs(results(gpu, op, x) - exact)
    assert in_last_places(errors, exact).max() < ALLOWED


def test_gelu_by_tanh(gpu: Target) -> None:
    x = all_halves()
    wide = x.astype(np.float64)
    exact = wide * expit(np.sqrt(8 / np.pi) * (wide + 0.044715 * wide**3))
    errors = np.abs(results(gpu, "Gelu", x, approximate="tanh") - exact)
    assert in_last_places(errors, exact).max() < ALLOWED


@pytest.mark.parametrize("op", EXACT)
def test_what_is_no_number_and_infinity(gpu: Target, op: str) -> None:
    found = results(gpu, op, np.array([np.nan, np.inf], np.float16))
    assert np.isnan(found[0])
    assert found[1] == (1 if op == "Sigmoid" else np.inf)


def test_softmax_of_halves(gpu: Target) -> None:
    x = (random(5, 197) * 9).astype(np.float16)
    exact = softmax(x.astype(np.float64), axis=1)
    errors = np.abs(results(gpu, "Softmax", x) - exact)
    assert in_last_places(errors, exact).max() < ALLOWED


def test_floats_are_not_approximated() -> None:
    for op in (*EXACT, "Softmax"):
        nodes = Nodes(opset=24)
        nodes.add(op, random(4, 64))
        assert COARSE not in text(nodes), op


def test_floats_of_which_all_readers_take_halves_are() -> None:
    nodes = Nodes()
    nodes.add("Cast", nodes.add("Gelu", random(4, 64)), to=onnx.TensorProto.FLOAT16)
    assert COARSE in text(nodes)


def test_floats_that_others_read_too_are_not() -> None:
    nodes = Nodes()
    value = nodes.add("Gelu", random(4, 64))
    nodes.add("Cast", value, to=onnx.TensorProto.FLOAT16)
    nodes.add("Relu", value)
    assert COARSE not in text(nodes)
