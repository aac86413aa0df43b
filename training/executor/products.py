"""Products of matrices."""

from __future__ import annotations

import torch

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, always


def _gemm(node: Node) -> Compute:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    transpose_a, transpose_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))

    def multiply(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
        scaled = product if alpha == 1.0 else alpha * product
        if c is None:
            return scaled
        return scaled + (c if beta == 1.0 else beta * c)

    return multiply


def _einsum(node: Node) -> Compute:
    equation = node.get("equation")
    return lambda *operands: torch.einsum(equation, *operands)


OPERATORS: dict[str, Maker] = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": always(torch.matmul)}
