import pytest

from graphopt.backends.cuda.tiles import MULTIPROCESSORS, TILES, choose_tile, parts_of

SHAPES = [(1, 1000, 2048), (64, 3136, 576), (512, 49, 4608), (4096, 4096, 4096), (7, 9, 1), (12, 100, 72)]


@pytest.mark.parametrize(("rows", "columns", "depth"), SHAPES)
def test_parts_cover_the_depth_and_none_is_empty(rows: int, columns: int, depth: int) -> None:
    for tile in TILES:
        parts, steps = parts_of(tile, rows, columns, depth), -(-depth // tile.depth)
        each = -(-steps // parts)
        assert (parts - 1) * each < steps <= parts * each


def test_loads_are_shared_out_evenly() -> None:
    for tile in TILES:
        assert tile.rows * tile.depth % tile.threads == 0
        assert tile.columns * tile.depth % tile.threads == 0


def test_large_products_get_large_tiles_and_small_ones_fill_the_gpu() -> None:
    large, small = choose_tile(1, 4096, 4096, 4096), choose_tile(1, 512, 49, 4608)
    assert large.rows * large.columns > small.rows * small.columns
    tiles = -(-512 // small.rows) * -(-49 // small.columns)
    assert tiles * parts_of(small, 512, 49, 4608) >= MULTIPROCESSORS // 2
