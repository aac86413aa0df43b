"""Matrix products: what is summed over meets, what is not is made; in batches, such as heads, both sides meet."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Dims, Flow, label, rank
from graphopt.passes.prune.labels import Block
from graphopt.passes.prune.rules.rule import Rule, combine, lifted, parameter

Operand = tuple[Sequence[Block], Dims]


def matmul(flow: Flow, node: ir.Node) -> None:
    """Left [..., M, K], right [..., K, N]; vectors are not followed."""
    _multiply(flow, node, 0, 1)


def quantised_matmul(flow: Flow, node: ir.Node) -> None:
    """Scales and zero points of columns go with them."""
    _multiply(flow, node, 0, 3)
    made = flow.axis(node.outputs[0], -1)
    for index in (4, 5):
        value = node.inputs[index] if len(node.inputs) > index else None
        if rank(value) == 1 and value is not None and value.shape != (1,):
            flow.meet(flow.axis(value, 0), made, f"{label(node)} makes what stays")


def integer_matmul(flow: Flow, node: ir.Node) -> None:
    """Zero points of columns go with them."""
    _multiply(flow, node, 0, 1)
    zeros = node.inputs[3] if len(node.inputs) > 3 else None
    if rank(zeros) == 1 and zeros is not None and zeros.shape != (1,):
        flow.meet(flow.axis(zeros, 0), flow.axis(node.outputs[0], -1), f"{label(node)} makes what stays")


def _multiply(flow: Flow, node: ir.Node, left_index: int, right_index: int) -> None:
    left, right = node.inputs[left_index], node.inputs[right_index]
    assert left is not None
    assert right is not None
    ranks = rank(left), rank(right)
    if ranks[0] is None or ranks[1] is None or min(ranks[0], ranks[1]) < 2:
        for value in (left, right):
            flow.freeze(value, f"{label(node)} multiplies vectors")
        return
    wide = max(ranks[0], ranks[1])
    operands = lifted(flow, left, wide), lifted(flow, right, wide)
    assert operands[0] is not None
    assert operands[1] is not None
    flow.put(node.outputs[0], _product(flow, operands[0], operands[1]))
    _link(flow, node, left, right, (ranks[0] - 2, ranks[0] - 1), (ranks[1] - 2, ranks[1] - 1))


def gemm(flow: Flow, node: ir.Node) -> None:
    """Y = A' B' + C."""
    if any(value is not None and rank(value) is None for value in node.inputs):
        for value in node.inputs:
            flow.freeze(value, f"the rank of what {label(node)} reads is not known")
        return
    sides = []
    for index, name in enumerate(("transA", "transB")):
        found = lifted(flow, node.inputs[index], 2)
        assert found is not None
        flipped = bool(attribute(node, name))
        sides.append(([each.T for each in found[0]], found[1][::-1]) if flipped else found)
    made = _product(flow, sides[0], sides[1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        sizes: Dims = [sides[0][1][0], sides[1][1][1]]
        addend = lifted(flow, node.inputs[2], 2)
        assert addend is not None
        made = combine(flow, [(made, sizes), addend])
    flow.put(node.outputs[0], made)
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None
    assert right is not None
    axes = [(1, 0) if attribute(node, name) else (0, 1) for name in ("transA", "transB")]
    _link(flow, node, left, right, axes[0], axes[1])


def _product(flow: Flow, left: Operand, right: Operand) -> list[Block]:
    """The blocks of a product of operands of the same rank. Heads that are open decide for going whole."""
    summed = len(left[1]) - 1, len(left[1]) - 2
    sides = [
        [flow.labels.outermost(block) if block.shape[axis] > 1 else block for block in blocks]
        for (blocks, _), axis in zip((left, right), summed, strict=True)
    ]
    inner = [
        next((block.reshape(-1) for block in blocks if block.shape[axis] > 1), None)
        for blocks, axis in zip(sides, summed, strict=True)
    ]
    flow.meet(inner[0], inner[1], f"{label(flow.node)} multiplies it with what stays")
    outer = [
        ([block for block in blocks if block.shape[axis] == 1], _with_one(sizes, axis))
        for blocks, (_, sizes), axis in zip(sides, (left, right), summed, strict=True)
    ]
    return combine(flow, outer)


def _with_one(sizes: Dims, axis: int) -> Dims:
    return [1 if place == axis else size for place, size in enumerate(sizes)]


def _link(
    flow: Flow,
    node: ir.Node,
    left: ir.Value,
    right: ir.Value,
    left_axes: tuple[int, int],
    right_axes: tuple[int, int],
) -> None:
    """The constant side makes and reads channels: rows and columns of `left_axes` (M, K), of `right_axes` (K, N)."""
    output = node.outputs[0]
    wide = rank(output) or 2
    weight = parameter(right)
    if weight is not None:
        flow.makes(weight, right_axes[1], output, wide - 1)
        flow.reads(weight, right_axes[0], left, left_axes[1])
        return
    weight = parameter(left)
    if weight is not None:
        flow.makes(weight, left_axes[0], output, wide - 2)
        flow.reads(weight, left_axes[1], right, right_axes[0])


RULES: dict[tuple[str, str], Rule] = {
    ("", "MatMul"): Rule(matmul),
    ("", "Gemm"): Rule(gemm),
    ("", "MatMulInteger"): Rule(integer_matmul),
    ("", "QLinearMatMul"): Rule(quantised_matmul),
}
