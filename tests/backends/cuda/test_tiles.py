"""How products on multiply-add units are cut into tiles and parts."""

import pytest

from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_tiles import AMPERE, HOPPER, Chip
from graphopt.backends.cuda.tiles import STATIC, TILES, choose_tile, depth_parts

SHAPES = [(1, 1000, 2048), (64, 3136, 576), (512, 49, 4608), (4096, 4096, 4096), (7, 9, 1), (12, 100, 72)]


@pytest.mark.parametrize("depth", [1, 72, 576, 4608])
def test_parts_cover_the_depth_and_none_is_empty(depth: int) -> None:
    for tile in TILES:
        steps = -(-depth // tile.depth)
        for parts in depth_parts(tile, depth):
            each = -(-steps // parts)
            assert (parts - 1) * each < steps <= parts * each


def test_loads_are_shared_out_evenly() -> None:
    for tile in TILES:
        assert tile.rows * tile.depth % tile.threads == 0
        assert tile.columns * tile.depth % tile.threads == 0
        assert tile.threads % 32 == 0
        assert tile.stages > 1


def teams(chip: Chip, rows: int, columns: int, depth: int) -> int:
    tile, parts = choose_tile(chip, Extents(1, rows, columns, depth))
    return -(-rows // tile.rows) * -(-columns // tile.columns) * parts


@pytest.mark.parametrize("chip", [AMPERE, HOPPER])
@pytest.mark.parametrize("size", [4, 8])
def test_chosen_tiles_fit_static_memory(chip: Chip, size: int) -> None:
    for rows, columns, depth in SHAPES:
        tile, _ = choose_tile(chip, Extents(1, rows, columns, depth), size)
        assert tile.shared(size) <= STATIC


@pytest.mark.parametrize("chip", [AMPERE, HOPPER])
def test_large_products_get_large_tiles_and_small_ones_fill_the_gpu(chip: Chip) -> None:
    large, _ = choose_tile(chip, Extents(1, 4096, 4096, 4096))
    assert large.rows * large.columns >= 64 * 128
    assert teams(chip, 512, 49, 4608) >= chip.multiprocessors // 2
    assert teams(chip, 1024, 768, 3072) >= chip.multiprocessors


def test_few_rows_get_low_tiles() -> None:
    tile, _ = choose_tile(HOPPER, Extents(1, 8, 4096, 64))
    assert tile.rows <= 32
