"""Export of torch convolution blocks, with Conv and BatchNormalization apart, as exporters write them."""

from graph import Graph
from training import Weights


def conv_norm(
    graph: Graph, value: str, weights: Weights, conv: str, norm: str, *, stride: int = 1, groups: int = 1
) -> str:
    """A same-padded convolution without bias, then batch normalisation."""
    kernel = weights[f"{conv}.weight"]
    size = kernel.shape[-1]
    value = graph.add(
        "Conv",
        [value, graph.constant(f"{conv}.weight", kernel)],
        conv,
        kernel_shape=[size, size],
        pads=[size // 2] * 4,
        strides=[stride, stride],
        group=groups,
    )
    parameters = ("weight", "bias", "running_mean", "running_var")
    constants = [graph.constant(f"{norm}.{part}", weights[f"{norm}.{part}"]) for part in parameters]
    return graph.add("BatchNormalization", [value, *constants], norm, epsilon=1e-5)


def linear(graph: Graph, value: str, weights: Weights, name: str, output: str) -> str:
    """A dense layer as Gemm with a transposed weight."""
    constants = [graph.constant(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias")]
    return graph.add("Gemm", [value, *constants], output, transB=1)
