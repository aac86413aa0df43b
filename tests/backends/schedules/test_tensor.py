"""Schedules of tensor cores: rules choose what was measured to be good, and every candidate is a tile that works."""

import hashlib
from random import Random

import pytest

from graphopt.backends.cuda.extents import Extents
from graphopt.backends.cuda.tensor_space import is_valid
from graphopt.backends.cuda.tensor_tiles import HOPPER_WARPS, TensorTile, chip_of, choose_tensor_tile
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.core import GPU, GPU_HOPPER, Core
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.schedules import tensor_convolution, tensor_product
from graphopt.backends.schedules.choice import FAMILIES, Rules, is_candidate
from graphopt.backends.schedules.workload import Workload
from graphopt.backends.tune.search import short

GROUPS = {
    (1, 4096, 4096, 4096): (128, 256, 4, 1),
    (1, 1024, 1024, 1024): (64, 128, 8, 1),
    (1, 128, 768, 768): (64, 32, 8, 1),
    (1, 128, 3072, 768): (64, 64, 8, 1),
    (1, 128, 768, 3072): (64, 64, 8, 4),
    (1, 1024, 768, 768): (64, 96, 8, 1),
    (1, 1024, 2304, 768): (128, 192, 5, 1),
    (1, 1024, 3072, 768): (128, 192, 5, 1),
    (1, 1024, 768, 3072): (64, 96, 8, 1),
    (1, 1576, 768, 3072): (128, 96, 8, 1),
    (96, 128, 128, 64): (64, 64, 4, 1),
    (96, 197, 64, 200): (64, 64, 4, 1),
    (1, 1, 1000, 2048): (64, 64, 8, 7),
    (1, 3136, 64, 576): (64, 32, 8, 1),
    (1, 3136, 256, 64): (128, 64, 8, 1),
    (1, 25088, 64, 576): (64, 64, 4, 1),
    (1, 196, 256, 2304): (64, 64, 8, 4),
    (1, 49, 512, 4608): (64, 64, 8, 8),
    (1, 392, 512, 4608): (64, 128, 8, 4),
    (1, 1568, 1024, 256): (128, 128, 4, 1),
    (1, 7, 9, 8): (64, 32, 8, 1),
}
"""Extents of products of halves -> rows, columns, stages and parts, most of which were measured to be good on an H100 (ADR 0041)."""

CONVOLUTION = Geometry(1, 2, 16, 24, (Axis(9, 5, 3, 2, 1, 1), Axis(12, 12, 5, 1, 2, 1)))


@pytest.mark.parametrize(("extents", "expected"), GROUPS.items(), ids=str)
def test_rules_choose_what_was_measured_to_be_good(
    extents: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    workload = tensor_product.workload(Extents(*extents), 2, along_depth=True)
    tile, parts = tensor_product.tile_of(Rules().choose(workload, GPU_HOPPER, lambda config: True))
    assert (tile.rows, tile.columns, tile.stages, parts) == expected
    assert tile.by_groups


@pytest.mark.parametrize(
    ("core", "along_depth", "size", "expected"),
    [
        (GPU, True, 2, (TensorTile(64, 64, 4, 32, 32), 6)),
        (GPU_HOPPER, False, 2, (TensorTile(64, 64, 4, 32, 32), 8)),
        (GPU_HOPPER, True, 1, (TensorTile(64, 32, 8), 1)),
        (GPU_HOPPER, True, 4, (TensorTile(64, 96, 8), 8)),
    ],
)
def test_they_know_the_chip_and_the_size(
    core: Core, along_depth: bool, size: int, expected: tuple[TensorTile, int]
) -> None:
    workload = tensor_product.workload(Extents(1, 196, 256, 2304), size, along_depth)
    assert tensor_product.tile_of(Rules().choose(workload, core, lambda config: True)) == expected


def test_hundreds_of_choices_have_stayed() -> None:
    """A digest of what the model of rounds chose when its constants were fitted."""
    random, digest = Random(7), hashlib.sha256()
    for _ in range(60):
        batch = random.choice([1, 1, 1, 2, 12, 96])
        extents = Extents(batch, *(random.randrange(*ends) for ends in ((1, 9000), (8, 5000), (1, 5000))))
        for core, along_depth in ((GPU, True), (GPU_HOPPER, True), (GPU_HOPPER, False)):
            for size in (1, 2, 4):
                tile, parts = choose_tensor_tile(chip_of(core, along_depth), extents, size)
                digest.update(f"{' '.join(map(str, vars(tile).values()))} {parts};".encode())
    assert digest.hexdigest()[:16] == "fc78a1ae16e1d68d"


WORKLOADS = [
    tensor_product.workload(Extents(1, 196, 256, 2304), 2, True),
    tensor_product.workload(Extents(12, 128, 128, 64), 2, False),
    tensor_product.workload(Extents(1, 128, 64, 96), 1, True),
    tensor_convolution.workload(CONVOLUTION, 2, True),
    tensor_convolution.workload(CONVOLUTION, 4, False),
]


@pytest.mark.parametrize("core", [GPU, GPU_HOPPER], ids=["ampere", "hopper"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_candidates_are_distinct_and_valid_and_make_programs(workload: Workload, core: Core) -> None:
    family = FAMILIES[workload.family]
    found = family.candidates(workload, core)
    assert len({str(config) for _, config in found}) == len(found) > 20
    along_depth = bool(dict(workload.facts).get("along_depth", 1))
    for _, config in found:
        tile, parts = tensor_product.tile_of(config)
        chip = chip_of(core, along_depth)
        assert is_valid(chip if tile.by_groups or core == GPU else HOPPER_WARPS, tile, along_depth)
        assert tile.ahead >= 1
        assert parts >= 1
    for _, config in found[:3]:
        tile, parts = tensor_product.tile_of(config)
        program = family.standalone(workload, config, core).program
        assert len(program.kernels()) == (1 if parts == 1 or tile.is_clustered(parts) else 2)
        assert len(program.outputs) == 1


def test_the_space_is_wider_than_the_rules() -> None:
    found = tensor_product.candidates(WORKLOADS[0], GPU_HOPPER)
    tiles = {(config["rows"], config["columns"]) for _, config in found}
    assert {(64, 256), (256, 128), (192, 192), (16, 64)} <= tiles
    assert max(int(config["parts"]) for _, config in found) == 12


def test_too_many_sums_and_too_much_memory_are_invalid() -> None:
    chip = chip_of(GPU_HOPPER)
    assert is_valid(chip, TensorTile(128, 80, 4), True)
    assert is_valid(chip, TensorTile(192, 256, 4), True)
    assert not is_valid(chip, TensorTile(256, 192, 3), True)
    assert not is_valid(chip, TensorTile(256, 256, 3), True)
    assert not is_valid(chip, TensorTile(128, 256, 8), True)
    assert not is_valid(chip, TensorTile(64, 32, 4, 32, 32), False)


def test_what_no_candidate_is_is_told_apart() -> None:
    workload = WORKLOADS[0]
    rule = Rules().choose(workload, GPU_HOPPER, lambda config: True)
    assert is_candidate(workload, GPU_HOPPER, rule)
    assert not is_candidate(workload, GPU_HOPPER, {**rule, "rows": 100})
    assert not is_candidate(workload, GPU_HOPPER, {"rows": 1, "vectors": 1})


def test_a_convolution_is_what_its_workload_says() -> None:
    workload = WORKLOADS[3]
    assert tensor_convolution.geometry_of(Workload.parse(str(workload))) == CONVOLUTION
    assert tensor_convolution.extents_of(CONVOLUTION) == Extents(2, 60, 24, 240)
    assert short(workload) == "conv 1x16x9 -> 24x5, 3, first axis"
