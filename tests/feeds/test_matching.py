import numpy as np
import pytest

from graphopt.errors import InputError
from graphopt.feeds.matching import fits, match_feeds
from tests.conftest import make_model

ONE = make_model("g (float[2,n] x) => (float[2,n] y) { y = Relu(x) }")
OTHER = make_model("g (float[3,n] x) => (float[3,n] y) { y = Relu(x) }")
TWO = make_model("g (float[2] a, int64[2] b) => (float[2] y) { c = Cast <to=1> (b) y = Add(a, c) }")
A, B = np.zeros(2, np.float32), np.zeros(2, np.int64)


def test_a_single_array_needs_no_name() -> None:
    assert list(match_feeds([ONE], {"anything": np.zeros((2, 7), np.float32)})) == ["x"]


def test_one_variant_that_fits_is_enough() -> None:
    feeds = match_feeds([ONE, OTHER], {"x": np.zeros((3, 1), np.float32)})
    assert [fits(variant, feeds) for variant in (ONE, OTHER)] == [False, True]


def test_no_variant_fits() -> None:
    with pytest.raises(InputError, match=r"shapes x\[4, 1\], the model takes x\[2, n\] or x\[3, n\]"):
        match_feeds([ONE, OTHER], {"x": np.zeros((4, 1), np.float32)})


def test_another_rank_does_not_fit() -> None:
    assert not fits(ONE, {"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"a": A}, "no data for input b; the data has a"),
        ({}, "the data has nothing"),
        ({"a": A, "b": B, "c": A}, "no input c; its inputs are a, b"),
        ({"a": A, "b": A}, "'b' has dtype float32, the model takes int64"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_feeds([TWO], feeds)
