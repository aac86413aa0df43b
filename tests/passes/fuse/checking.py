"""Fuse a model and check that it still computes the same."""

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.model.inference import infer_shapes
from graphopt.passes.expand import Expand
from graphopt.passes.fuse import Fuse
from graphopt.rewriting.pipeline import Context, Outcome
from tests.conftest import apply_and_check, random_feeds, reference


def fuse(model: ir.Model, tolerance: float = 1e-5) -> Outcome:
    """Applies ``Fuse`` as ``optimize`` does: the result is standard ONNX of the same opset."""
    infer_shapes(model)
    return apply_and_check(Fuse(), model, exact=False, tolerance=tolerance)


def fuse_for_compile(model: ir.Model, tolerance: float = 1e-5, steps: int = 0) -> Outcome:
    """Applies ``Fuse(for_compile=True)``; what it gives is compared after ``Expand``, on a copy.

    Integers may differ by ``steps``.
    """
    infer_shapes(model)
    feeds = random_feeds(model)
    before = reference(model, feeds)
    outcome = Fuse(for_compile=True).apply(model, Context())
    assert not Fuse(for_compile=True).apply(model, Context()).modified, "the pass is not idempotent"
    expanded = ir.from_proto(ir.to_proto(model))
    Expand().apply(expanded, Context())
    onnx.checker.check_model(ir.to_proto(expanded), full_check=True)
    assert all(node.domain != "graphopt" for node in expanded.graph)
    for expected, actual in zip(before, reference(expanded, feeds), strict=True):
        assert actual.dtype == expected.dtype
        if expected.dtype.kind in "iu":
            np.testing.assert_allclose(actual.astype(np.int64), expected.astype(np.int64), rtol=0, atol=steps)
        else:
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, strict=True)
    return outcome


def reasons(outcome: Outcome, rule: str) -> list[str]:
    """Why ``rule`` refused."""
    return [reason for name, reason in outcome.refused if name == rule]
