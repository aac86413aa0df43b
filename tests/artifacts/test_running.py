from pathlib import Path

import numpy as np
import pytest

from graphopt.artifacts import running
from graphopt.errors import DataError
from graphopt_runtime import Tensor, Variant

INPUTS = (
    Tensor("image", (2, 3), np.dtype("float32")),
    Tensor("input_ids", (1, 64), np.dtype("int64")),
    Tensor("attention_mask", (4, 64), np.dtype("int64")),
    Tensor("x_lengths", (50,), np.dtype("int64")),
    Tensor("pixels", (1000,), np.dtype("uint8")),
    Tensor("flag", (8,), np.dtype("bool")),
    Tensor("empty", (0, 3), np.dtype("float16")),
)


def test_random_feeds_make_sense() -> None:
    feeds = running.random_feeds(Variant(0, INPUTS, ()))
    assert {name: (a.shape, a.dtype) for name, a in feeds.items()} == {
        t.name: (t.shape, t.dtype) for t in INPUTS
    }
    assert set(np.unique(feeds["input_ids"])) == {0, 1}
    assert feeds["attention_mask"][:, 0].all()
    assert feeds["x_lengths"].min() >= 1
    assert feeds["pixels"].max() > 200
    assert feeds["flag"].any()


def test_random_feeds_depend_on_the_seed_alone() -> None:
    variant = Variant(0, INPUTS[:1], ())
    first, second, other = (running.random_feeds(variant, seed)["image"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_any_name_can_be_saved(tmp_path: Path) -> None:
    outputs = {"file": np.ones(2), "a/b:0": np.zeros(3, np.int8)}
    running.save(outputs, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as saved:
        assert set(saved.files) == set(outputs)
        np.testing.assert_array_equal(saved["file"], np.ones(2))


def test_the_same_outputs_give_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        running.save({"y": np.arange(3)}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_whose_name_has_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a=b.npy", np.ones(1))
    assert list(running.read_feeds(["a=b.npy"])) == ["a=b"]


def test_a_name_takes_one_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    with pytest.raises(DataError, match="2 arrays, NAME= takes one"):
        running.read_feeds([f"x={tmp_path}/two.npz"])


def test_a_device_is_no_data() -> None:
    with pytest.raises(DataError, match="neither a regular file nor a folder"):
        running.read_feeds(["/dev/zero"])
