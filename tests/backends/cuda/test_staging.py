"""Results that lie along another axis than what they are computed from."""

from collections.abc import Sequence

import numpy as np
import pytest
from tvm import sym

from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda import pixels, runs, staging
from graphopt.backends.cuda.staging import Staged
from graphopt.backends.cuda.staging import Target as Place
from graphopt.backends.targets import Target
from tests.backends.cuda.test_operators import random
from tests.backends.cuda.test_runs import half, model_of, text
from tests.backends.lower.harness import Nodes, fixed

BARRIER = "__syncthreads"

BANKS = 8
"""Of 16 bytes, which threads that access shared memory together must not share."""


@pytest.fixture(autouse=True)
def _tiles_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are computed as large ones are."""
    monkeypatch.setattr(runs, "LEAST", 1)


@pytest.mark.parametrize("dtype", ["int8", "bool", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 72, 8, 12), (1, 136, 4, 36), (2, 24, 7, 7), (129, 264)])
def test_elements_of_all_sizes(gpu: Target, dtype: str, shape: Sequence[int]) -> None:
    """Tiles that are whole, and parts of such."""
    nodes = Nodes()
    orders = ((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0)) if len(shape) == 4 else ((1, 0),)
    for order in orders:
        nodes.add("Transpose", (random(*shape) * 50).astype(dtype), perm=order)
    nodes.check(gpu)


def test_chains_with_operands_of_all_kinds(gpu: Target) -> None:
    nodes = Nodes()
    moved = nodes.add("Transpose", half(2, 40, 6, 36), perm=[0, 2, 3, 1])
    scaled = nodes.add("Mul", nodes.add("Relu", moved), half(40))
    nodes.add("Add", nodes.add("Add", scaled, half(6, 1, 1)), half(36, 1))
    nodes.add("Add", nodes.add("Transpose", half(2, 40, 6, 36), perm=[0, 2, 3, 1]), half(2, 6, 36, 40))
    nodes.check(gpu)


@pytest.mark.parametrize("size", [7, 8, 12])
def test_images_that_end_channel_by_channel(gpu: Target, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(pixels, "ENOUGH", 1)
    nodes = Nodes()
    for channels in (16, 72):
        x, weights = half(2, channels, size, size), fixed(half(channels, 1, 3, 3))
        nodes.add("Conv", x, weights, fixed(half(channels)), group=channels, pads=[1, 1, 1, 1])
        blocked = nodes.add("Conv", x, weights, group=channels, pads=[1, 1, 1, 1])
        nodes.add("Add", nodes.add("Relu", blocked), half(channels, 1, 1))
    nodes.check(gpu)


def staged_text(*shape: int, order: Sequence[int]) -> str:
    return text(model_of("Transpose", half(*shape), perm=order))


def test_both_sides_are_accessed_16_bytes_at_a_time() -> None:
    """Eight threads each way, of eight reads, and of eight writes to and from shared memory in a loop."""
    made = staged_text(2, 64, 8, 8, order=[0, 2, 3, 1])
    assert BARRIER in made
    assert made.count("graphopt_read16((") == 8 + 1
    assert made.count("graphopt_write16((") == 8 + 1
    assert "p0[" not in made.replace("&(p0[", "")


OTHERS = [
    pytest.param((2, 8, 4, 64), (0, 2, 1, 3), id="the last axis stays"),
    pytest.param((2, 8, 8, 8), (0, 2, 3, 1), id="rows of 16 bytes"),
    pytest.param((2, 33, 33), (0, 2, 1), id="odd extents"),
]


@pytest.mark.parametrize(("shape", "order"), OTHERS)
def test_others_need_no_shared_memory(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    assert BARRIER not in staged_text(*shape, order=order)


def test_few_elements_have_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert BARRIER not in staged_text(2, 8, 8, 32, order=[0, 2, 3, 1])


def test_two_results_are_not_staged(gpu: Target) -> None:
    nodes = Nodes()
    nodes.add("MaxPool", half(2, 16, 8, 8), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    nodes.check(gpu)


@pytest.mark.parametrize(("dtype", "width", "depth"), [("float16", 8, 8), ("float32", 4, 4), ("int8", 16, 4)])
def test_no_bank_is_met_twice(dtype: str, width: int, depth: int) -> None:
    """By eight threads that write 16 bytes of their own rows, or the words of which so many are written at once; nor by those that
    read a row."""
    target = Place(Buffer("out", 1 << 20, dtype), 0, {}, 1024, 1, 0, 1)
    tile = Staged(((1024,), (1024,)), 0, 1, width, depth, target)
    analyzer, per = sym.Analyzer(), staging.LARGEST // np.dtype(dtype).itemsize

    def place(row: int, run: int, column: int) -> int:
        return int(analyzer.simplify(tile._place(row, run, column)))

    threads = 8 * per // depth
    written = [place((t % 8) * width, t % 8, t // 8 * depth) for t in range(threads)]
    assert len({at // depth % (BANKS * per // depth) for at in written}) == threads
    read = [place(3 * width + 1, 3, unit * per) for unit in range(BANKS)]
    assert len({at // per % BANKS for at in read}) == BANKS


@pytest.mark.parametrize(("channels", "runs"), [(64, 8), (96, 12), (128, 8), (136, 6), (576, 8)])
def test_operands_of_less_than_two_lines_stay_together(channels: int, runs: int) -> None:
    target = Place(Buffer("out", 1 << 20, "float16"), 0, {}, 4096, 4, 0, 4)
    tile = Staged(((channels,), (4096,)), 0, 1, 8, 1, target)
    assert tile.threads == runs * 16


def test_teams_have_no_more_threads_than_blocks() -> None:
    """Runs of two halves are many, so that those of less than two lines are parted, too."""
    assert BARRIER in staged_text(512, 66, order=[1, 0])
    target = Place(Buffer("out", 1 << 20, "float16"), 0, {}, 4096, 1, 0, 4)
    assert Staged(((66,), (512,)), 0, 1, 2, 2, target).threads == 17 * 32
