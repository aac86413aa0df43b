import numpy as np
import onnx_ir as ir
import pytest

from graphopt.errors import InputError
from graphopt.feeds.random_feeds import random_feeds
from tests.conftest import make_model


def test_indices_stay_in_the_table() -> None:
    text = "g (int64[N, 200] ids) => (float[N, 200, 2] y) { y = Gather<axis = 0>(table, ids) }"
    ids = random_feeds(make_model(text, 18, table=np.zeros((7, 2), np.float32)))["ids"]
    assert ids.shape == (1, 200)
    assert set(np.unique(ids)) == set(range(7))


def test_indices_are_found_through_casts_and_other_axes() -> None:
    text = """g (int64[200] ids) => (float[2, 200] y)
        { small = Cast<to = 6>(ids) wide = Unsqueeze(small, axis) flat = Squeeze(wide, axis)
          y = Gather<axis = 1>(table, flat) }"""
    model = make_model(text, 18, table=np.zeros((2, 5), np.float32), axis=np.array([0]))
    assert set(np.unique(random_feeds(model)["ids"])) == set(range(5))


def test_the_smaller_of_two_tables_wins() -> None:
    text = (
        "g (int64[100] ids) => (float[100] y, float[100] z) { y = Gather(big, ids) z = Gather(small, ids) }"
    )
    model = make_model(text, 18, big=np.zeros(50, np.float32), small=np.zeros(3, np.float32))
    assert random_feeds(model)["ids"].max() == 2


@pytest.mark.parametrize("dtype", ["int64", "float", "bool"])
def test_masks_are_runs_of_ones(dtype: str) -> None:
    text = f"g ({dtype}[32, 16] attention_mask) => ({dtype}[32, 16] y) {{ y = Identity(attention_mask) }}"
    mask = random_feeds(make_model(text))["attention_mask"].astype(int)
    assert set(np.unique(mask)) == {0, 1}
    assert (np.diff(mask, axis=1) <= 0).all()
    assert mask.sum(1).min() >= 8


def test_recurrent_lengths_fit_the_sequence() -> None:
    text = """g (float[6, 40, 1] x, int32[40] n) => (float[6, 1, 40, 1] y)
        { y = GRU<hidden_size = 1>(x, w, r, , n) }"""
    model = make_model(text, 18, w=np.zeros((1, 3, 1), np.float32), r=np.zeros((1, 3, 1), np.float32))
    lengths = random_feeds(model)["n"]
    assert lengths.dtype == np.int32
    assert set(np.unique(lengths)) == set(range(1, 7))


def test_lengths_by_name() -> None:
    text = "g (float[1, 9] x, int64[50] seq_len) => (float[1, 9] y) { y = Relu(x) }"
    assert set(np.unique(random_feeds(make_model(text))["seq_len"])) == set(range(1, 10))


def test_a_scalar_takes_a_constant_it_is_compared_with() -> None:
    text = "g (int64 rate) => (bool y) { y = Equal(rate, known) }"
    assert random_feeds(make_model(text, 18, known=np.array(16000)))["rate"] == 16000


def test_one_byte_integers_use_their_whole_range() -> None:
    text = "g (uint8[4000] x) => (uint8[4000] y) { y = Identity(x) }"
    pixels = random_feeds(make_model(text))["x"]
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_bools_are_never_all_false() -> None:
    model = make_model("g (bool[1] flag) => (bool[1] y) { y = Not(flag) }")
    assert all(random_feeds(model, seed)["flag"].any() for seed in range(10))


def test_dimensions() -> None:
    text = "g (float[N, C, T] x, float[T, N] y) => (float[N, C, T] z) { z = Relu(x) }"
    feeds = random_feeds(make_model(text), dims={"C": 5}, size=7)
    assert (feeds["x"].shape, feeds["y"].shape) == ((1, 5, 1), (1, 1))
    assert random_feeds(make_model(text), dims={"T": 3, "N": 2}, size=7)["x"].shape == (2, 7, 3)


def test_seeds() -> None:
    model = make_model("g (float[4] a, float[4] b) => (float[4] y) { y = Add(a, b) }")
    one, same, other = random_feeds(model, 1), random_feeds(model, 1), random_feeds(model, 2)
    np.testing.assert_array_equal(one["a"], same["a"])
    assert not np.array_equal(one["a"], other["a"])
    assert not np.array_equal(one["a"], one["b"])


def test_strings_and_missing_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="numeric tensor"):
        random_feeds(make_model("g (string[1] s) => (string[1] y) { y = Identity(s) }"))
    shapeless = make_model("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    shapeless.graph.inputs[0].shape = None
    with pytest.raises(InputError, match="'x' has no shape; give one with --input-shape"):
        random_feeds(shapeless)


def test_inputs_with_defaults_are_left_out() -> None:
    model = make_model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", 18, w=np.zeros(2, np.float32)
    )
    assert isinstance(model, ir.Model)
    assert list(random_feeds(model)) == ["x"]
