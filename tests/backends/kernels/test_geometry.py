"""The phases of a transposed convolution, against the definition."""

import itertools

import pytest

from graphopt.backends.kernels.geometry import Axis, transposed_phases

AXES = [
    Axis(size, (size - 1) * stride + (kernel - 1) * dilation + 1 + extra - pad, kernel, stride, pad, dilation)
    for size, kernel, stride, pad, dilation, extra in itertools.product(
        (1, 5), (1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 2), (1, 2, 3), (0, 1)
    )
]


def expected(axis: Axis) -> set[tuple[int, int, int]]:
    """Every (output, input, tap) of the transposed convolution."""
    places = (
        (i * axis.stride + t * axis.dilation - axis.pad, i, t)
        for i in range(axis.input)
        for t in range(axis.kernel)
    )
    return {(o, i, t) for o, i, t in places if 0 <= o < axis.output}


def test_phases_reach_what_the_definition_does() -> None:
    for axis in (axis for axis in AXES if axis.output > 0):
        found = set()
        for phase in transposed_phases(axis):
            for u, tap in itertools.product(range(phase.axis.output), range(phase.axis.kernel)):
                source = phase.axis.source(u, tap)
                if 0 <= source < axis.input:
                    found.add((u * phase.spread + phase.start, source, phase.tap(tap)))
        assert found == expected(axis), axis


def test_phases_cover_every_output_once() -> None:
    for axis in (axis for axis in AXES if axis.output > 0):
        outputs = [u * p.spread + p.start for p in transposed_phases(axis) for u in range(p.axis.output)]
        assert sorted(outputs) == list(range(axis.output)), axis


def test_slice_gives_the_taps_of_a_phase_backwards() -> None:
    for axis in AXES:
        for phase in transposed_phases(axis):
            taps = list(range(axis.kernel))[phase.slice][::-1]
            assert taps == [phase.tap(j) for j in range(phase.axis.kernel)]


@pytest.mark.parametrize(("pad", "inside"), [(0, True), (1, False), (-1, False)])
def test_inside_means_that_all_taps_exist(pad: int, inside: bool) -> None:
    assert Axis(10, 8, 3, 1, pad, 1).is_inside is inside


def test_only_a_window_of_one_is_pointwise() -> None:
    assert Axis(10, 10, 1, 1, 0, 1).is_pointwise
    assert not Axis(10, 10, 1, 1, 1, 1).is_pointwise
    assert not Axis(10, 5, 1, 2, 0, 1).is_pointwise
