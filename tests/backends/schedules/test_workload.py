"""Workloads and their keys; standalone programs of every family."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.core import AVX2, AVX512, AVX512_VNNI, Core
from graphopt.backends.kernels.window import Window
from graphopt.backends.schedules import byte_conv, byte_gemm, conv, gemm, lookup, sparse
from graphopt.backends.schedules.choice import FAMILIES, Measured, Rules
from graphopt.backends.schedules.workload import Config, Workload

SHAPE = ConvShape(1, 1, 32, 48, Window((14, 14), (14, 14), (3, 3), (1, 1), (1, 1), (1, 1)))
WORKLOADS = [
    conv.workload(SHAPE, True),
    conv.workload(ConvShape(1, 1, 3, 16, Window((9, 9), (4, 4), (3, 3), (2, 2), (0, 0), (1, 1))), False),
    byte_conv.workload(SHAPE, "uint8", False, 16),
    byte_conv.workload(SHAPE, "int8", True, 16),
    byte_conv.workload(
        ConvShape(1, 1, 3, 16, Window((9, 9), (4, 4), (3, 3), (2, 2), (0, 0), (1, 1))), "uint8", False, 4
    ),
    gemm.workload(1, 128, 384, 64, True),
    gemm.workload(12, 100, 33, 7, False),
    byte_gemm.workload(20, 100, 64, "uint8"),
    byte_gemm.workload(1, 33, 12, "int8"),
]
SPARSE = [
    conv.workload(SHAPE, True, 0.1),
    conv.workload(
        ConvShape(1, 2, 32, 48, Window((28, 28), (28, 28), (1, 1), (1, 1), (0, 0), (1, 1))), False, 0.3
    ),
    gemm.workload(1, 128, 384, 64, True, sparse.fact(0.3)),
    gemm.workload(1, 1, 40, 7, True, sparse.fact(0.004)),
]
LOOKUP = [
    gemm.workload(1, rows, 400, 64, True, lookup.fact(rows, values, AVX512))
    for rows, values in ((1, 16), (2, 32))
]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(-5, 10**9)))
def test_a_key_gives_its_workload_back(facts: dict[str, int]) -> None:
    workload = Workload.of("conv", facts)
    assert Workload.parse(str(workload)) == workload


def test_a_convolution_is_what_its_workload_says() -> None:
    assert conv.shape_of(conv.workload(SHAPE, True)) == SHAPE


@pytest.mark.parametrize("workload", [*WORKLOADS, *SPARSE, *LOOKUP], ids=str)
def test_candidates_are_distinct_and_sorted_and_make_programs(workload: Workload) -> None:
    family = FAMILIES[workload.family]
    found = family.candidates(workload, AVX512_VNNI)
    assert [cycles for cycles, _ in found] == sorted(cycles for cycles, _ in found)
    assert len({str(config) for _, config in found}) == len(found) > 1
    for _, config in found[:3]:
        program = family.standalone(workload, config, AVX512_VNNI).program
        assert len(program.kernels()) == len(program.outputs) == 1


@pytest.mark.parametrize("workload", SPARSE, ids=str)
def test_zeros_are_skipped_where_there_are_many(workload: Workload) -> None:
    assert sparse.is_sparse(Rules().choose(workload, AVX512, lambda config: True))


def test_zeros_are_multiplied_where_there_are_few() -> None:
    for kept in (0.85, 0.95, 1.0):
        workload = gemm.workload(1, 128, 384, 64, True, sparse.fact(kept))
        assert not sparse.is_sparse(Rules().choose(workload, AVX512, lambda config: True))
    assert gemm.workload(1, 128, 384, 64, True, sparse.fact(0.95)) == gemm.workload(1, 128, 384, 64, True)


@pytest.mark.parametrize("workload", LOOKUP, ids=str)
def test_few_values_are_looked_up(workload: Workload) -> None:
    assert lookup.looks_up(Rules().choose(workload, AVX512, lambda config: True))


@pytest.mark.parametrize(
    ("rows", "values", "core"), [(3, 16, AVX512), (1, 33, AVX512), (1, None, AVX512), (1, 16, AVX2)]
)
def test_other_products_have_no_codes(rows: int, values: int | None, core: Core) -> None:
    assert lookup.fact(rows, values, core) == {}


def test_winograd_is_faster_than_skipping_half() -> None:
    shape = ConvShape(1, 1, 128, 128, Window((28, 28), (28, 28), (3, 3), (1, 1), (1, 1), (1, 1)))
    found = Rules().choose(conv.workload(shape, True, 0.5), AVX512, lambda config: True)
    assert conv.is_winograd(found)


@pytest.mark.parametrize("workload", WORKLOADS[2:5], ids=str)
def test_bytes_have_a_twin_on_floats(workload: Workload) -> None:
    found = [config for _, config in byte_conv.candidates(workload, AVX512_VNNI)]
    assert not byte_conv.is_float(found[0])
    twin = next(config for config in found if byte_conv.is_float(config))
    assert len(byte_conv.standalone(workload, twin, AVX512_VNNI).program.kernels()) == 2


def test_rules_take_the_best_usable_candidate() -> None:
    def is_direct(config: Config) -> bool:
        return config["algorithm"] == conv.DIRECT

    assert not is_direct(Rules().choose(WORKLOADS[0], AVX512, lambda config: True))
    assert is_direct(Rules().choose(WORKLOADS[0], AVX512, is_direct))


def test_measurements_come_before_rules_and_what_is_missing_is_known() -> None:
    slow: Config = {"rows": 1, "vectors": 1}
    measured = Measured({WORKLOADS[5]: [{"rows": 2, "vectors": 1}, slow]})
    assert measured.choose(WORKLOADS[5], AVX512, lambda config: config == slow) == slow
    assert measured.missing == []
    rule = Rules().choose(WORKLOADS[6], AVX512, lambda config: True)
    assert measured.choose(WORKLOADS[6], AVX512, lambda config: True) == rule
    assert measured.missing == [WORKLOADS[6]]
