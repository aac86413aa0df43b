"""Operators of com.microsoft against ONNX Runtime."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, compiled, fixed, ir, models

random = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype("float32")


@dataclass
class MicrosoftNodes(Nodes):
    """Nodes of com.microsoft, whose shapes ONNX cannot infer."""

    opset: int = 17

    def microsoft(self, op: str, *operands: Any, outputs: int = 1, **attributes: Any) -> str:
        return self.add(op, *operands, outputs=outputs, domain="com.microsoft", **attributes)

    def unread(self, name: str) -> None:
        """Leave out an output."""
        self.outputs.remove(name)

    def proto(self) -> onnx.ModelProto:
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in self.feeds.items()
        ]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = onnx.helper.make_graph(self.nodes, "nodes", inputs, outputs, self.initializers)
        imports = [onnx.helper.make_opsetid("", self.opset), onnx.helper.make_opsetid("com.microsoft", 1)]
        return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_activations_and_products() -> None:
    nodes = MicrosoftNodes()
    nodes.microsoft("Gelu", normal(3, 17))
    nodes.microsoft("BiasGelu", normal(3, 17), normal(17))
    nodes.microsoft("FastGelu", normal(3, 17), normal(17))
    nodes.microsoft("FastGelu", normal(3, 17))
    nodes.microsoft("QuickGelu", normal(3, 17), alpha=1.3)
    nodes.microsoft("FusedMatMul", normal(2, 5, 3), normal(2, 7, 5), transA=1, transB=1, alpha=0.5)
    nodes.microsoft("FusedMatMul", normal(4, 2, 3), normal(2, 3, 5), transBatchA=1)
    nodes.microsoft(
        "FusedGemm",
        normal(3, 5),
        fixed(normal(5, 7)),
        normal(7),
        activation="LeakyRelu",
        activation_alpha=0.2,
    )
    name = nodes.microsoft("BiasGelu", normal(3, 17), normal(17))
    nodes.add("Sqrt", nodes.add("Abs", name))
    nodes.check()


def test_normalisations() -> None:
    nodes = MicrosoftNodes()
    x, skip, scale, bias, total = normal(2, 3, 18), normal(2, 3, 18), normal(18), normal(18), normal(18)
    nodes.microsoft("SkipLayerNormalization", x, skip, scale, bias, total, epsilon=1e-5)
    nodes.microsoft("SkipLayerNormalization", x, skip, scale, outputs=4)
    nodes.unread("SkipLayerNormalization1_1")
    nodes.unread("SkipLayerNormalization1_2")
    nodes.microsoft("SkipSimplifiedLayerNormalization", x, skip, scale, total, epsilon=1e-5)
    nodes.add("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=1e-5)
    nodes.check()


def test_embedding() -> None:
    nodes = MicrosoftNodes()
    ids, segments = (random.integers(0, n, (2, 5)).astype("int32") for n in (9, 2))
    tables = [fixed(normal(n, 16)) for n in (9, 8, 2)]
    mask = np.int32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    nodes.microsoft(
        "EmbedLayerNormalization", ids, segments, *tables, normal(16), normal(16), mask, outputs=2
    )
    nodes.check()


def test_fused_convolution() -> None:
    nodes = MicrosoftNodes()
    for activation in ("Relu", "Tanh"):
        nodes.microsoft(
            "FusedConv", normal(1, 3, 8, 8), fixed(normal(5, 3, 3, 3)), normal(5), activation=activation
        )
    sum_with = normal(1, 5, 6, 6)
    weights = fixed(normal(5, 3, 3, 3))
    nodes.microsoft("FusedConv", normal(1, 3, 8, 8), weights, normal(5), sum_with, activation="Relu")
    nodes.check()


@pytest.mark.parametrize(
    ("bits", "zeros"), [(4, None), (4, "packed"), (4, "floats"), (8, None), (8, "packed")]
)
@pytest.mark.parametrize(("rows", "columns"), [(1, 6), (5, 33), (20, 2)])
def test_matmul_of_packed_bits(rows: int, columns: int, bits: int, zeros: str | None) -> None:
    nodes = MicrosoftNodes()
    depth, block = 40, 16
    packed = random.integers(0, 256, (columns, 3, block * bits // 8)).astype("uint8")
    points = {
        None: None,
        "packed": random.integers(0, 256, columns * -(-3 * bits // 8)).astype("uint8"),
        "floats": random.uniform(0, 2**bits, columns * 3).astype("float32"),
    }[zeros]
    operands = (fixed(packed), fixed(normal(columns * 3)), None if points is None else fixed(points))
    nodes.microsoft(
        "MatMulNBits", normal(rows, depth), *operands, K=depth, N=columns, bits=bits, block_size=block
    )
    nodes.check()


def test_multi_head_attention() -> None:
    nodes = MicrosoftNodes()
    for keys in (5, 7):
        nodes.microsoft(
            "MultiHeadAttention", normal(2, 5, 12), normal(2, keys, 12), normal(2, keys, 12), num_heads=3
        )
    bias, added = normal(36), normal(1, 3, 5, 7)
    operands = (normal(2, 5, 12), normal(2, 7, 12), normal(2, 7, 12))
    nodes.microsoft("MultiHeadAttention", *operands, bias, None, added, num_heads=3)
    mask = np.int32([[1, 1, 1, 1, 0, 0, 0], [1] * 7])
    nodes.microsoft("MultiHeadAttention", *operands, None, mask, num_heads=3)
    past = (normal(2, 3, 4, 4), normal(2, 3, 4, 4))
    nodes.microsoft(
        "MultiHeadAttention", normal(2, 1, 12), normal(2, 1, 12), normal(2, 1, 12), None, None, None, *past,
        outputs=3, num_heads=3,
    )  # fmt: skip
    nodes.check()


def test_attention() -> None:
    nodes = MicrosoftNodes()
    x, weights, bias = normal(2, 5, 10), fixed(normal(10, 36)), fixed(normal(36))
    nodes.microsoft("Attention", x, weights, bias, num_heads=3)
    nodes.microsoft("Attention", x, weights, bias, None, num_heads=3, unidirectional=1)
    nodes.microsoft("Attention", x, weights, bias, np.int32([[1, 1, 1, 0, 0], [1] * 5]), num_heads=3)
    nodes.microsoft("Attention", x, weights, bias, np.int32([3, 5]), num_heads=3)
    past = normal(2, 2, 3, 4, 4)
    nodes.microsoft("Attention", x, weights, bias, None, past, outputs=2, num_heads=3, unidirectional=1)
    nodes.check()


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    nodes = MicrosoftNodes()
    cos, sin = fixed(normal(9, 4)), fixed(normal(9, 4))
    positions = random.integers(0, 9, (2, 5))
    nodes.microsoft("RotaryEmbedding", normal(2, 5, 24), positions, cos, sin, interleaved=interleaved)
    nodes.microsoft("RotaryEmbedding", normal(2, 3, 5, 8), np.int64([2]), cos, sin, interleaved=interleaved)
    nodes.check()


@pytest.mark.parametrize("rotary", [0, 1])
def test_group_query_attention(rotary: int) -> None:
    nodes = MicrosoftNodes()
    tables = [fixed(normal(16, 8)), fixed(normal(16, 8))] if rotary else []
    common = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": rotary, "outputs": 3}
    for past, steps in ((0, 5), (6, 1)):
        lengths = (fixed(np.full(2, past + steps - 1, np.int32)), fixed(np.int32(past + steps)))
        cache = (normal(2, 2, past, 16), normal(2, 2, past, 16)) if past else (None, None)
        operands = (normal(2, steps, 64), normal(2, steps, 32), normal(2, steps, 32))
        nodes.microsoft("GroupQueryAttention", *operands, *cache, *lengths, *tables, **common)
    nodes.check()


def test_lengths_of_run_time_are_refused() -> None:
    nodes = MicrosoftNodes()
    operands = (normal(2, 5, 32), normal(2, 5, 16), normal(2, 5, 16), None, None)
    lengths = (np.int32([4, 4]), fixed(np.int32(5)))
    nodes.microsoft("GroupQueryAttention", *operands, *lengths, outputs=3, num_heads=4, kv_num_heads=2)
    with pytest.raises(UnsupportedError, match="seqlens_k is computed at run time"):
        lower_only(nodes)


def test_outputs_that_serve_training_are_refused() -> None:
    nodes = MicrosoftNodes()
    nodes.microsoft("SkipLayerNormalization", normal(2, 3, 18), normal(2, 3, 18), normal(18), outputs=2)
    with pytest.raises(UnsupportedError, match="serves training"):
        lower_only(nodes)


def lower_only(nodes: Nodes) -> None:
    model = ir.from_proto(nodes.proto())
    models.normalise(model)
    compiled(model, nodes.feeds)
