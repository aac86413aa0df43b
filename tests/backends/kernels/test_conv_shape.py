"""The tile chosen for a convolution fits into registers and covers odd shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.backends.kernels.conv_shape import ConvShape, choose_tile
from graphopt.backends.kernels.core import AVX2, AVX512, NEON, SSE, Core
from graphopt.backends.kernels.window import Window


def shape(channels: int, filters: int, height: int, width: int, kernel: int = 3) -> ConvShape:
    half = kernel // 2
    size = (height, width)
    return ConvShape(1, 1, channels, filters, Window(size, size, (kernel,) * 2, (1, 1), (half, half), (1, 1)))


@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([SSE, AVX2, AVX512, NEON]),
)
def test_sums_fit_into_registers(channels: int, filters: int, height: int, width: int, core: Core) -> None:
    tile = choose_tile(shape(channels, filters, height, width), core)
    assert tile.blocks * tile.columns * tile.rows < core.registers
    assert tile.rows == 1 or tile.columns == width


@pytest.mark.parametrize("width", [14, 28, 56])
def test_wide_images_get_tiles_that_use_each_weight_often(width: int) -> None:
    tile = choose_tile(shape(128, 128, width, width), AVX512)
    assert tile.blocks * tile.columns >= 20
    assert tile.columns >= 5


def test_small_images_get_tiles_of_several_rows() -> None:
    assert choose_tile(shape(512, 512, 7, 7), AVX512).rows > 1
