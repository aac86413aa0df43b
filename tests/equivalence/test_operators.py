"""The operator tests of ONNX, simplified: as they are, and with all inputs bound so that everything folds.

Run with ``pytest -m conformance tests/equivalence``.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.verify import ReferenceFailed, reference
from graphopt.model import bind_values, load, normalise
from graphopt.passes import preset
from graphopt.rewriting.pipeline import run

pytestmark = [pytest.mark.conformance, pytest.mark.filterwarnings("ignore")]

BATCHES = 40
TOLERANCES = {np.dtype(np.float16): 1e-2}


@cache
def cases() -> list[Any]:
    """The test cases with plain numeric tensors."""
    from onnx.backend.test.case.node import collect_testcases

    return [
        case
        for case in collect_testcases(None)
        if case.data_sets and all(map(is_numeric, case.data_sets[0][0]))
    ]


def is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "biufc"


@pytest.mark.parametrize("bound", [False, True], ids=["inputs", "constants"])
@pytest.mark.parametrize("batch", range(BATCHES))
def test_simplified_operators_agree(tmp_path: Path, batch: int, bound: bool) -> None:
    failures = []
    for case in cases()[batch::BATCHES]:
        path = tmp_path / "model.onnx"
        path.write_bytes(case.model.SerializeToString())
        original = load(path)
        inputs = [value.name for value in original.graph.inputs]
        feeds = dict(zip(inputs, map(np.asarray, case.data_sets[0][0]), strict=False))
        expected = run_or_none(original, feeds)
        if expected is not None and not agrees(
            simplified(load(path), feeds if bound else {}), feeds, expected
        ):
            failures.append(case.name)
    assert not failures


def run_or_none(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[Any] | None:
    """None where ONNX Runtime lacks the operator."""
    try:
        return list(reference(model, threads=1)(feeds).values())
    except ReferenceFailed:
        return None


def simplified(model: ir.Model, constants: dict[str, np.ndarray]) -> ir.Model:
    bind_values(model, constants)
    normalise(model)
    run(model, preset("O1"))
    return model


def agrees(model: ir.Model, feeds: dict[str, np.ndarray], expected: Sequence[Any]) -> bool:
    left = {value.name for value in model.graph.inputs}
    actual = run_or_none(model, {name: array for name, array in feeds.items() if name in left})
    return actual is not None and all(map(is_close, actual, expected))


def is_close(actual: Any, expected: Any) -> bool:
    if not is_numeric(expected):
        return type(actual) is type(expected)
    actual, expected = np.asarray(actual), np.asarray(expected)
    tolerance = TOLERANCES.get(expected.dtype, 1e-5)
    same_type = actual.dtype == expected.dtype and actual.shape == expected.shape
    return same_type and np.allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
