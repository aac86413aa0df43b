"""Layouts: which reshapes of strided data need no copy."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from graphopt.backends.layout import Strided, dense


def as_array(memory: np.ndarray, shape: tuple[int, ...], layout: Strided) -> np.ndarray:
    return as_strided(memory[layout.offset :], shape, [stride * memory.itemsize for stride in layout.strides])


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], Strided]:
    """A part of a dense array, its axes in any order."""
    whole = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    shape = [draw(st.integers(1, extent)) for extent in whole]
    order = draw(st.permutations(range(len(whole))))
    strides = dense(whole).strides
    return tuple(shape[axis] for axis in order), Strided(tuple(strides[axis] for axis in order))


@st.composite
def factorings(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A shape of so many elements."""
    shape = []
    while size > 1:
        factor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        shape.append(factor)
        size //= factor
    return tuple(shape)


@given(views(), st.data())
def test_reshaped_views_are_those_of_numpy(
    view: tuple[tuple[int, ...], Strided], data: st.DataObject
) -> None:
    """The same elements; and a view wherever numpy finds one."""
    shape, layout = view
    wanted = data.draw(factorings(math.prod(shape)))
    memory = np.arange(4**4)
    array = as_array(memory, shape, layout)
    found = layout.reshaped(shape, wanted)
    if found is None:
        assert not np.shares_memory(array.reshape(wanted), memory)
    else:
        np.testing.assert_array_equal(as_array(memory, wanted, found), array.reshape(wanted))


def test_a_broadcast_axis_merges_with_nothing_but_its_like() -> None:
    assert Strided((0, 1)).reshaped((2, 3), (6,)) is None
    assert Strided((0, 0)).reshaped((2, 3), (6,)) == Strided((0,))


def test_empty_tensors_have_any_shape() -> None:
    assert Strided((7, 1), 5).reshaped((0, 3), (3, 0, 2)) == Strided((0, 2, 1), 5)
