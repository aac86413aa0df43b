"""Codes in graphs: standard ONNX that ONNX Runtime computes, and that passes leave alone or decode."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt
from graphopt.model import proto, statistics
from graphopt.passes import preset
from graphopt.passes.cluster.codebook import Size
from graphopt.passes.cluster.coded import Coded, encode
from graphopt.passes.cluster.plan import make_plan
from graphopt.passes.cluster.writer import NARROW_OPSET, write_codes
from graphopt.passes.codes import Decode, is_codes
from graphopt.rewriting.pipeline import Context, run
from tests.conftest import make_model, ops, reference

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((40, 30)).astype(np.float32)
FEEDS = {"x": RNG.standard_normal((3, 40)).astype(np.float32)}


def clustered(
    clusters: int = 32, group: int | None = None, opset: int = NARROW_OPSET
) -> tuple[ir.Model, Coded]:
    model = make_model("agraph (float[3,40] x) => (float[3,30] y) { y = MatMul(x, w) }", opset, w=WEIGHTS)
    model.ir_version = 10
    [target] = make_plan(model).targets
    coded = encode(target.array, target.axis, Size(clusters), group)
    write_codes(model, target.value, coded)
    return model, coded


def rounded(coded: Coded) -> np.ndarray:
    return np.asarray(FEEDS["x"] @ coded.weights)


@pytest.mark.parametrize("group", [None, 6])
@pytest.mark.parametrize("clusters", [2, 3, 16, 17, 256])
def test_any_runtime_decodes_them(clusters: int, group: int | None) -> None:
    model, coded = clustered(clusters, group)
    onnx.checker.check_model(proto(model), full_check=True)
    stored = model.graph.initializers["w_codes"].const_value
    assert stored is not None
    assert stored.dtype == (ir.DataType.UINT4 if clusters <= 16 else ir.DataType.UINT8)
    assert "w" not in model.graph.initializers
    np.testing.assert_allclose(reference(model, FEEDS)[0], rounded(coded), atol=1e-5)


@pytest.mark.parametrize("group", [None, 6])
@pytest.mark.parametrize("clusters", [8, 32])
def test_optimize_leaves_codes_alone(clusters: int, group: int | None) -> None:
    model, coded = clustered(clusters, group)
    before = statistics(model).bytes
    for level in ("O1", "O2"):
        again = model.clone()
        run(again, preset(level), (), Context())
        assert statistics(again).bytes <= before
        np.testing.assert_allclose(reference(again, FEEDS)[0], rounded(coded), atol=1e-5)


@pytest.mark.parametrize("group", [None, 6])
@pytest.mark.parametrize("clusters", [8, 32])
def test_compile_decodes_them(clusters: int, group: int | None) -> None:
    model, coded = clustered(clusters, group)
    with graphopt.compile(model) as compiled:
        [found] = compiled.run(None, dict(FEEDS))
    np.testing.assert_allclose(found, rounded(coded), atol=1e-5)


@pytest.mark.parametrize("group", [None, 6])
@pytest.mark.parametrize("clusters", [16, 32])
def test_decode_gives_floats_back(clusters: int, group: int | None) -> None:
    model, coded = clustered(clusters, group)
    assert Decode().apply(model, Context()).modified
    assert not Decode().apply(model, Context()).modified
    run(model, preset("O2"), (), Context())
    assert ops(model) == {"MatMul": 1}
    [weights] = [value for value in model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    assert weights.const_value is not None
    np.testing.assert_array_equal(weights.const_value.numpy(), coded.weights)


def test_other_casts_are_no_codes() -> None:
    """Of numbers, of codes that something else reads as well, and in front of a table that is computed."""
    text = """agraph (float[4,3] x) => (float[2,3] a, float[2,3] b, int32[2] d, float[2] e) {
        i = Cast<to = 6>(c) a = Gather(x, i)
        j = Cast<to = 6>(c) b = Gather(t, j) d = Identity(j)
        e = Cast<to = 1>(c) }"""
    model = make_model(text, c=np.uint8([0, 1]), t=np.ones((4, 3), np.float32))
    assert not any(is_codes(node) for node in model.graph)
