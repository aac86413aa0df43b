"""What is known of an operator, and helpers that its rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Dims, Flow, dims, label
from graphopt.passes.prune.labels import Block, covered


class Removal(Protocol):
    """What is gone. Values have the shapes that they had before."""

    def kept(self, value: ir.Value | None, axis: int) -> NDArray[np.bool_] | None:
        """Which elements along an axis stay; None where all do."""

    def size(self, value: ir.Value, axis: int) -> int | None:
        """How many elements there are along an axis now, where some are gone; None where all stay."""

    def replace(self, node: ir.Node, index: int, content: NDArray[np.generic]) -> None:
        """Gives a node another constant as an input."""


@dataclass(frozen=True)
class Rule:
    """`follow` joins labels and gives some to the outputs; `repair` changes what a node says about sizes or places of channels."""

    follow: Callable[[Flow, ir.Node], None]
    repair: Callable[[Removal, ir.Node], None] | None = None


def argument(node: ir.Node, index: int, name: str | None = None) -> list[int] | None:
    """Constant integers that are an attribute in old versions of an operator, an input in new ones."""
    found = attribute(node, name) if name is not None and name in node.attributes else None
    if found is not None:
        return [int(each) for each in np.asarray(found).reshape(-1)]
    value = node.inputs[index] if len(node.inputs) > index else None
    array = edit.constant(value)
    return None if array is None else [int(each) for each in array.reshape(-1)]


def set_argument(removal: Removal, node: ir.Node, index: int, name: str, content: Sequence[int]) -> None:
    """Write what `argument` reads."""
    if name in node.attributes:
        node.attributes[name] = ir.AttrInt64s(name, list(content))
        return
    old = edit.constant(node.inputs[index]) if len(node.inputs) > index else None
    removal.replace(node, index, np.array(content, np.int64 if old is None else old.dtype))


def combine(flow: Flow, operands: Sequence[tuple[Sequence[Block], Dims]]) -> list[Block]:
    """The blocks of what operands give that are broadcast; all have the rank of the result.

    Where one operand has labels along several open axes and another along some of them, those go with their outermost axis. What
    meets elements without labels stays.
    """
    decided = _decided(flow, operands)
    found: dict[tuple[int, ...], Block] = {}
    for number, blocks in enumerate(decided):
        for block in blocks:
            axes = tuple(covered(block))
            for other, (_, sizes) in enumerate(operands):
                if other != number and any(sizes[axis] != 1 for axis in axes):
                    partner = [each for each in decided[other] if tuple(covered(each)) == axes]
                    if partner:
                        flow.labels.join(block, partner[0])
                    else:
                        flow.labels.freeze([block], f"{label(flow.node)} combines it with what stays")
            found.setdefault(axes, block)
    return list(found.values())


def _decided(flow: Flow, operands: Sequence[tuple[Sequence[Block], Dims]]) -> list[list[Block]]:
    """Blocks that another operand does not meet along some of their axes only."""

    def is_open(block: Block, number: int) -> bool:
        axes = set(covered(block))
        return any(_meets_in_part(axes, other) for place, other in enumerate(operands) if place != number)

    return [
        [flow.labels.outermost(block) if is_open(block, number) else block for block in blocks]
        for number, (blocks, _) in enumerate(operands)
    ]


def _meets_in_part(axes: set[int], operand: tuple[Sequence[Block], Dims]) -> bool:
    blocks, sizes = operand
    wide = {axis for axis in axes if sizes[axis] != 1}
    return bool(wide) and (
        wide != axes or any(axes & set(covered(other)) and axes != set(covered(other)) for other in blocks)
    )


def lifted(flow: Flow, value: ir.Value | None, rank: int) -> tuple[list[Block], Dims] | None:
    """The blocks and sizes of a value with leading axes of size 1; None for an unknown rank."""
    sizes = dims(value)
    if sizes is None:
        return None
    ones = rank - len(sizes)
    return [block.reshape((1,) * ones + block.shape) for block in flow.blocks(value)], [1] * ones + sizes


def parameter(value: ir.Value | None) -> ir.Value | None:
    """The constant that a value is, or dequantises."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        value = producer.inputs[0]
    return value if edit.tensor(value) is not None else None
