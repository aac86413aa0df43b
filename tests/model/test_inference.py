"""Inference is asked again only where more is known than before."""

import onnx_ir as ir

from graphopt.model.inference import is_news
from tests.conftest import make_model


def test_a_node_is_news_until_asked_and_after_its_inputs_change() -> None:
    node = make_model("agraph (float[N,3] x) => (float[N,3] y) { y = Relu(x) }").graph[0]
    assert is_news(node)
    assert not is_news(node)
    assert node.inputs[0] is not None
    node.inputs[0].shape = ir.Shape([2, 3])
    assert is_news(node)
    assert not is_news(node)
