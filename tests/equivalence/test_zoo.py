"""Real models: simplified, they compute the same, keep their interface, and have only static shapes once bound.

Run with ``GRAPHOPT_ZOO=<folder> pytest -m zoo``.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import bind_dims, bind_first_dims, free_dims, load, normalise, statistics, validate
from graphopt.passes import preset
from graphopt.rewriting.pipeline import run
from tests.conftest import ZOO_MODELS, reference

pytestmark = pytest.mark.zoo

CUSTOM_OPERATORS = "superres_prepost_op18"
SIZES = {"sequence": 576, "p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96}
DEFAULT_SIZE = 16
MODELS = ZOO_MODELS
RUNNABLE = [path for path in MODELS if path.stem != CUSTOM_OPERATORS]


def size_of(name: str) -> int:
    return SIZES.get(name, DEFAULT_SIZE)


def bound(path: Path) -> ir.Model:
    model = load(path)
    bind_first_dims(model)
    bind_dims(model, {name: size_of(name) for names in free_dims(model).values() for name in names})
    return model


def feeds_for(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)
        if value.dtype == ir.DataType.INT64:
            feeds[value.name] = np.full(shape, 16_000) if value.name == "sr" else np.ones(shape, np.int64)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def simplified(model: ir.Model, name: str = "O1") -> ir.Model:
    normalise(model)
    run(model, preset(name))
    return model


@pytest.mark.parametrize("name", ["O1", "O2"])
@pytest.mark.parametrize("free", [False, True], ids=["bound", "free"])
@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_the_result_stays(path: Path, free: bool, name: str) -> None:
    original = bound(path)
    feeds = feeds_for(original)
    model = simplified(load(path) if free else bound(path), name)
    validate(model)
    assert [value.name for value in model.graph.outputs] == [value.name for value in original.graph.outputs]
    for expected, actual in zip(reference(original, feeds), reference(model, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), strict=True)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_every_shape_is_static_once_bound(path: Path) -> None:
    model = simplified(bound(path))
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            known = value.dtype is not None and value.shape is not None and value.shape.is_static()
            assert known or not value.uses(), (
                f"{node.op_type} {node.name}: {value.name} has shape {value.shape}"
            )


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_simplifying_again_changes_nothing(path: Path) -> None:
    model = simplified(bound(path))
    before = statistics(model)
    assert not run(model, preset("O1")).modified
    assert statistics(model) == before


def test_custom_operators_pass_through(zoo: Path) -> None:
    path = zoo / "models" / f"{CUSTOM_OPERATORS}.onnx"
    model = simplified(load(path))
    assert {"DecodeImage", "EncodeImage"} <= set(statistics(model).ops)
    assert [value.name for value in model.graph.outputs] == ["image_out"]


def test_two_exports_of_one_model_meet(zoo: Path) -> None:
    counts = {
        name: statistics(simplified(bound(zoo / "models" / f"{name}.onnx"))).nodes
        for name in ("gtcrn", "gtcrn_simple")
    }
    assert counts["gtcrn"] == counts["gtcrn_simple"]
