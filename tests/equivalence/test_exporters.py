"""What typical exporters emit becomes what a person would have written, and computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.model import normalise
from graphopt.passes import preset
from graphopt.rewriting.pipeline import run
from tests.conftest import random_feeds, reference
from tests.equivalence.exporters import GRAPHS, Graph, operators


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())
def test_only_the_work_is_left(graph: Graph) -> None:
    model = graph.model()
    feeds = random_feeds(model, free=3)
    expected = reference(model, feeds)
    normalise(model)
    run(model, preset("O2"))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert operators(model) == graph.left
    for before, after in zip(expected, reference(model, feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5, strict=True)
