"""Gemm without factors and transposed constants, and transposes that a matrix product can take in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.fuse.weights import CHEAP, in_dtype
from graphopt.rewriting.pattern import Op, Var
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)

GEMM = Op("Gemm", "a", "b", Var("c", optional=True))


def _fold_weight(match: Match) -> Replacement:
    """alpha and transB into a constant second operand."""
    alpha, flipped = (attribute(match.root, name) for name in ("alpha", "transB"))
    weight = edit.tensor(match["b"])
    if weight is None or (alpha == 1 and not flipped) or weight.dtype not in FLOATS:
        return None
    if len(match["b"].uses()) > 1 and weight.nbytes > CHEAP:
        return Refuse("the weight is used elsewhere and too large to copy")
    array = weight.numpy()
    scaled = in_dtype((array.T if flipped else array) * array.dtype.type(alpha), array.dtype)
    if isinstance(scaled, Refuse):
        return scaled
    return match.op(
        "Gemm", [match["a"], scaled, match.get("c")], attributes_of=match.root, alpha=None, transB=None
    )


def _fold_bias(match: Match) -> Replacement:
    """beta into a constant bias; without a bias it means nothing."""
    beta, bias = attribute(match.root, "beta"), match.get("c")
    array = edit.constant(bias)
    if beta == 1 or (bias is not None and array is None) or match["a"].dtype not in FLOATS:
        return None
    scaled = None if array is None else in_dtype(array * array.dtype.type(beta), array.dtype)
    if isinstance(scaled, Refuse):
        return scaled
    inputs: list[ir.Value | np.ndarray] = [match["a"], match["b"]]
    if scaled is not None:
        inputs.append(scaled)
    return match.op("Gemm", inputs, attributes_of=match.root, beta=None)


def _swaps_last_two(node: ir.Node) -> bool:
    perm = attribute(node, "perm")
    if perm is None:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        return shape is not None and len(shape) == 2
    return list(perm) == [*range(len(perm) - 2), len(perm) - 1, len(perm) - 2]


LEFT = Op("Transpose", "a", where=_swaps_last_two)
RIGHT = Op("Transpose", "b", where=_swaps_last_two)


def _toggled(name: str) -> Callable[[Match], Replacement]:
    def rewrite(match: Match) -> Replacement:
        inputs = [match["a"], match["b"], match.get("c")]
        changed: dict[str, Any] = {name: None if attribute(match.root, name) else 1}
        return match.op("Gemm", inputs, attributes_of=match.root, **changed)

    return rewrite


def _matmul_to_gemm(match: Match) -> Replacement:
    """Matrices only: the product of a transposed left operand is a Gemm."""
    shapes = [match[name].shape for name in ("a", "b")]
    if any(shape is None or len(shape) != 2 for shape in shapes):
        return None
    if match.opset < 11 or match["a"].dtype not in FLOATS:
        return Refuse("Gemm without bias needs opset 11 and floats")
    return match.op("Gemm", [match["a"], match["b"]], transA=1)


def _swap_operands(match: Match) -> Replacement:
    """(A' B')' = B A."""
    return match.op("MatMul", [match["b"], match["a"]])


WEIGHT_RULES = [Rule("gemm weight", GEMM, _fold_weight)]
"""For the compiler, which wants factors and transposes out of the way; elsewhere they would only cost a copy."""

RULES = [
    Rule("gemm bias", GEMM, _fold_bias),
    Rule("transpose into Gemm", Op("Gemm", LEFT, "b", Var("c", optional=True)), _toggled("transA")),
    Rule("transpose into Gemm", Op("Gemm", "a", RIGHT, Var("c", optional=True)), _toggled("transB")),
    Rule("transpose into MatMul", Op("MatMul", LEFT, "b"), _matmul_to_gemm),
    Rule(
        "transposed MatMul", Op("Transpose", Op("MatMul", LEFT, RIGHT), where=_swaps_last_two), _swap_operands
    ),
]
