"""Labels for the elements of axes: what has the same label in the end can only be removed together.

A block is an integer array of the rank of its value, of size 1 along the axes that it does not cover. An operator that moves elements
moves the labels of a block by the same numpy function. A block that covers several axes, such as heads and what is in a head behind
a Reshape, says that their elements were channels of one axis, and that it is open along which of the axes they may go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from networkx.utils import UnionFind
from numpy.typing import NDArray

Block = NDArray[np.int64]


class Labels:
    """Labels are numbers from 0 on; `join` says that two go together, `freeze` that one must stay."""

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[NDArray[np.int64]] = []
        self._sets: UnionFind[int] = UnionFind()
        self._frozen: list[tuple[Block, str]] = []

    def fresh(self, length: int, axis: int, rank: int) -> Block:
        """New labels along one axis."""
        self._count += length
        return along(np.arange(self._count - length, self._count), axis, rank)

    def join(self, left: Block, right: Block) -> None:
        """Elements that meet when the blocks are broadcast go together; blocks that do not fit each other stay."""
        if any(
            1 != one != other != 1 for one, other in zip(left.shape[::-1], right.shape[::-1], strict=False)
        ):
            self.freeze([left, right], "it is repeated as often as a free dimension says")
            return
        pairs = np.stack([each.reshape(-1) for each in np.broadcast_arrays(left, right)], axis=1)
        self._pairs.append(np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))

    def freeze(self, blocks: Iterable[Block], reason: str, first: bool = False) -> None:
        """Elements of these blocks stay; of several reasons the first counts."""
        found = [(block, reason) for block in blocks]
        self._frozen = [*found, *self._frozen] if first else [*self._frozen, *found]

    def collapse(self, block: Block, axis: int) -> Block:
        """The block along one axis alone: what differs in other axes only goes together."""
        others = tuple(each for each in covered(block) if each != axis)
        if not others:
            return block
        first = block[tuple(slice(0, 1) if each in others else slice(None) for each in range(block.ndim))]
        self.join(first, block)
        return first

    def outermost(self, block: Block) -> Block:
        """The block along the first axis that it covers: of an attention layer, along its heads."""
        return self.collapse(block, covered(block)[0])

    def settle(self, blocks: Sequence[Block]) -> tuple[NDArray[np.int64], dict[int, str]]:
        """The class of every label, and the reasons of the classes that stay.

        Blocks that cover several axes are collapsed to their longest unless their classes differ along one only.
        """
        open_blocks = [block for block in blocks if len(covered(block)) > 1]
        while True:
            classes = self._classes()
            ragged = [block for block in open_blocks if line(classes[block]) is None]
            if not ragged:
                break
            for block in ragged:
                self.collapse(block, int(np.argmax(block.shape)))
        reasons: dict[int, str] = {}
        for block, reason in self._frozen:
            for each in np.unique(classes[block]).tolist():
                reasons.setdefault(each, reason)
        return classes, reasons

    def _classes(self) -> NDArray[np.int64]:
        while self._pairs:
            for left, right in self._pairs.pop().tolist():
                self._sets.union(left, right)
        return np.array([self._sets[label] for label in range(self._count)], np.int64)


def along(numbers: NDArray[np.int64], axis: int, rank: int) -> Block:
    """A vector as a block along one axis."""
    return numbers.reshape([-1 if each == axis else 1 for each in range(rank)])


def covered(block: Block) -> list[int]:
    """The axes along which there are labels."""
    return [axis for axis, size in enumerate(block.shape) if size > 1]


def tight(block: Block) -> Block:
    """The block without axes along which it repeats itself; one that it covers is left."""
    for axis in covered(block):
        first = np.take(block, [0], axis)
        if len(covered(block)) > 1 and np.array_equal(np.broadcast_to(first, block.shape), block):
            block = first
    return block


def line(block: Block) -> tuple[int, NDArray[np.int64]] | None:
    """The axis along which the numbers of a block differ, and the numbers; None if they differ along several."""
    axes = covered(block)
    for axis in sorted(axes, key=lambda each: -block.shape[each]):
        first = block[tuple(slice(None) if each == axis else slice(0, 1) for each in range(block.ndim))]
        if np.array_equal(np.broadcast_to(first, block.shape), block):
            return axis, first.reshape(-1)
    return None
