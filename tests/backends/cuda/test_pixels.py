"""Blocks of neighbouring results."""

from collections.abc import Sequence

import pytest

from graphopt.backends.cuda.pixels import ENOUGH, SHORTEST, STRIDED, Block, suitable_blocks
from graphopt.backends.kernels.geometry import Axis

BLOCKS = ((4, 4), (2, 4), (1, 2))


def axis(output: int, stride: int = 1) -> Axis:
    return Axis(output * stride, output, 1, stride, 0, 1)


MANY = ENOUGH * SHORTEST * 16


@pytest.mark.parametrize(
    ("axes", "blocks"),
    [
        ((axis(8), axis(8)), BLOCKS),
        ((axis(6), axis(8)), BLOCKS[1:]),
        ((axis(7), axis(8)), BLOCKS[2:]),
        ((axis(8), axis(6)), BLOCKS[2:]),
        ((axis(8), axis(7)), ()),
        ((axis(8),), BLOCKS[2:]),
        ((axis(8), axis(8), axis(8)), BLOCKS[2:]),
        ((axis(8, 2), axis(8)), BLOCKS),
        ((axis(8), axis(8, 2)), STRIDED),
    ],
)
def test_images_are_whole_numbers_of_blocks(axes: Sequence[Axis], blocks: Sequence[Block]) -> None:
    assert suitable_blocks(axes, MANY, BLOCKS) == [*blocks, (1, 1)]


def test_enough_threads_are_left() -> None:
    square = (axis(4), axis(4))
    assert suitable_blocks(square, ENOUGH * SHORTEST, BLOCKS)[0] == (4, 4)
    assert suitable_blocks(square, ENOUGH * SHORTEST - 1, BLOCKS)[0] == (2, 4)
    assert suitable_blocks(square, SHORTEST, BLOCKS) == [(1, 1)]
