"""What products cost in accuracy whose sums are float16 for so many terms at a time, next to float64. Prints a table.

    GRAPHOPT_ZOO=... python benchmarks/half_sums.py

Operands are random, and those of pointwise convolutions of two classifiers on a real image. The kernels' arithmetic is simulated: each
product and addition is exact before it is rounded, as `fmla` does it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from graphopt.cli.report import markdown
from graphopt.feeds.data import load_dataset
from graphopt.model import load

Array = np.ndarray[Any, Any]

TERMS = (16, 40, 72, 128, 1 << 30)
MODELS = ("squeezenet1.1_ncnnfp16", "mobilenet_v2_1.0_224_fp32_from_int8")
LAYERS, ROWS = 3, 64
HEADINGS = ("operands", "depth", "rounding alone", *(str(terms) for terms in TERMS[:-1]), "all", "bfloat16")


def narrow_product(left: Array, right: Array, terms: int) -> Array:
    """The product of float16 matrices, of whose `terms` products at a time the sum is float16."""
    total = np.zeros((len(left), right.shape[1]), np.float32)
    for start in range(0, left.shape[1], terms):
        part = np.zeros(total.shape, np.float16)
        for i in range(start, min(start + terms, left.shape[1])):
            exact = part.astype(np.float64) + np.outer(left[:, i].astype(np.float64), right[i])
            part = exact.astype(np.float16)
        total += part
    return total


def row(name: str, left: Array, right: Array) -> list[str]:
    """Errors, each the root of the mean square next to that of the results."""
    want = left.astype(np.float64) @ right.astype(np.float64)

    def error(got: Array) -> str:
        return f"{np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)):.1e}"

    def rounded(dtype: Any) -> Array:
        return left.astype(dtype).astype(np.float64) @ right.astype(dtype).astype(np.float64)

    halves = left.astype(np.float16), right.astype(np.float16)
    sums = [error(narrow_product(*halves, min(terms, left.shape[1]))) for terms in TERMS]
    return [
        name,
        str(left.shape[1]),
        error(rounded(np.float16)),
        *sums,
        error(rounded(ml_dtypes.bfloat16)),
    ]


def real_operands(path: Path, data: Path) -> Iterator[tuple[str, Array, Array]]:
    """Activations and weights of a few pointwise convolutions."""
    model = onnx.load(path)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {
        node.input[1]: weights[node.input[1]].shape for node in model.graph.node if node.op_type == "Conv"
    }
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and shapes[node.input[1]][2:] == (1, 1) and shapes[node.input[1]][1] > 64
    ]
    nodes = [nodes[i] for i in np.linspace(0, len(nodes) - 1, LAYERS).astype(int)]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(node.input[0]) for node in nodes)
    (feeds,) = load_dataset(data, list(load(path).graph.inputs), "imagenet").batches(1, 1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for node, value in zip(nodes, session.run([n.input[0] for n in nodes], dict(feeds)), strict=True):
        pixels = value[0].reshape(value.shape[1], -1).T
        yield f"{path.stem}: {node.name}", pixels[:ROWS], weights[node.input[1]][:, :, 0, 0].T


def main() -> None:
    """Print the table."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((ROWS, 576), (576, 64)))
    rows = [row("random", left, right), row("random, rectified", np.maximum(left, 0), right)]
    zoo = Path(os.environ["GRAPHOPT_ZOO"])
    for name in MODELS:
        operands = real_operands(zoo / "models" / f"{name}.onnx", zoo / "data" / "imagenet_sample")
        rows += [row(*each) for each in operands]
    print(markdown(HEADINGS, rows))


if __name__ == "__main__":
    main()
