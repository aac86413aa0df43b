"""A multilayer perceptron, trained with scikit-learn: 64 -> 64 -> 32 -> 10."""

import numpy as np
import onnx
from sklearn.neural_network import MLPClassifier

from digits import Split
from graph import Graph

DESCRIPTION = "three-layer perceptron: Flatten, MatMul, Add, Relu, Softmax"


def build(split: Split) -> onnx.ModelProto:
    """Train and export; input ``image`` [N, 1, 8, 8] with values 0..16, output ``probabilities`` [N, 10]."""
    classifier = MLPClassifier((64, 32), alpha=1e-2, max_iter=400, random_state=0)
    classifier.fit(split.images.reshape(len(split.labels), -1) / 16, split.labels)
    return export(classifier.coefs_, classifier.intercepts_)


def export(coefficients: list[np.ndarray], intercepts: list[np.ndarray]) -> onnx.ModelProto:
    """The graph as most exporters write it: MatMul and Add apart."""
    graph = Graph("digits_mlp")
    image = graph.input("image", ["N", 1, 8, 8])
    scaled = graph.add("Div", [image, graph.constant("white", 16.0)], "scaled")
    value = graph.add("Flatten", [scaled], "flat", axis=1)
    last = len(coefficients) - 1
    for index, (weight, bias) in enumerate(zip(coefficients, intercepts, strict=True)):
        product = graph.add("MatMul", [value, graph.constant(f"w{index}", weight)], f"product{index}")
        value = graph.add("Add", [product, graph.constant(f"b{index}", bias)], f"dense{index}")
        if index < last:
            value = graph.add("Relu", [value], f"relu{index}")
    return graph.model(graph.add("Softmax", [value], "probabilities", axis=-1), ["N", 10])
