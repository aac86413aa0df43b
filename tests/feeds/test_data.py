from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.errors import DataError
from graphopt.feeds.data import Dataset, load_arrays, load_dataset, take_samples
from tests.conftest import make_model


def inputs(text: str) -> list[ir.Value]:
    return list(
        make_model(
            f"g ({text}) => (float[1] unused) {{ unused = Constant<value_floats = [0.0]>() }}"
        ).graph.inputs
    )


TWO = "int64[N, 4] ids, float[N, 4] mask"
IMAGE = "float[N, 3, 8, 8] image"


def test_npz_columns_become_batches(tmp_path: Path) -> None:
    ids, mask = np.arange(20).reshape(5, 4), np.ones((5, 4), np.float32)
    np.savez(tmp_path / "data.npz", ids=ids, mask=mask, labels=np.arange(5))
    data = load_dataset(tmp_path / "data.npz", inputs(TWO))
    batches = list(data.batches(2))
    assert len(data) == 5
    assert len(batches) == 2
    np.testing.assert_array_equal(batches[1]["ids"], ids[2:4])
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert len(list(data.batches(1, limit=3))) == 3


def test_npy_folder_and_integer_conversion(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(8, dtype=np.int16).reshape(2, 4))
    np.save(tmp_path / "mask.npy", np.ones((2, 4)))
    feeds = next(load_dataset(tmp_path, inputs(TWO)).batches())
    assert {name: array.dtype for name, array in feeds.items()} == {"ids": np.int64, "mask": np.float32}


def test_single_array_serves_a_single_input_whatever_its_name(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz",
        x=np.zeros((2, 8, 8, 3), np.uint8),
        y=np.array([1, 2], np.uint8),
        classes=np.array(["a"]),
    )
    data = load_dataset(tmp_path / "d.npz", inputs(IMAGE), preprocess="signed")
    batch = next(data.batches(2))["image"]
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, -1)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2]


def test_missing_input_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"no array for input.* mask.*has: ids"):
        load_dataset(tmp_path / "d.npz", inputs(TWO))


def test_different_sample_counts_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.zeros((2, 4)), mask=np.zeros((3, 4)))
    with pytest.raises(DataError, match="different numbers of samples"):
        load_dataset(tmp_path / "d.npz", inputs(TWO))


def test_wrong_rank_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.zeros(4), mask=np.zeros((4, 4)))
    with pytest.raises(DataError, match="'ids' has 2 dimensions, its array has 1"):
        load_dataset(tmp_path / "d.npz", inputs(TWO))


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot read"):
        load_arrays(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["missing.npz", "empty", "garbage.npz"])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage.npz").write_bytes(b"PK\x03\x04 this is no archive")
    with pytest.raises(DataError, match="cannot read"):
        load_arrays(tmp_path / name)


def test_unknown_preprocessing_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown preprocessing 'nope'.*imagenet"):
        load_dataset(tmp_path, inputs(IMAGE), preprocess="nope")


def test_labels_are_one_number_a_sample(tmp_path: Path) -> None:
    images = np.zeros((3, 3, 8, 8), np.float32)
    np.savez(tmp_path / "d.npz", image=images, labels=np.array([[1], [0], [2]]))
    found = load_dataset(tmp_path / "d.npz", inputs(IMAGE)).labels
    assert found is not None
    assert found.tolist() == [1, 0, 2]
    for labels in (np.zeros(2, np.int64), np.zeros((3, 2), np.int64), np.zeros(3, np.float32)):
        np.savez(tmp_path / "d.npz", image=images, labels=labels)
        with pytest.raises(DataError, match="labels are one whole number"):
            load_dataset(tmp_path / "d.npz", inputs(IMAGE))


def test_feeds_are_taken_as_they_come() -> None:
    source = ({"ids": np.full((2, 4), i), "mask": np.ones((2, 4))} for i in range(100))
    data = take_samples(source, inputs(TWO), 5)
    assert len(data) == 6
    assert next(source)["ids"][0, 0] == 3
    assert len(take_samples([np.zeros((3, 3, 8, 8))], inputs(IMAGE), None)) == 3
    assert len(take_samples([], inputs(IMAGE), None)) == 0


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([{"ids": np.zeros((1, 4))}], "nothing for input.* mask"),
        ([np.zeros((1, 4)), np.zeros((1, 5))], "fit"),
    ],
)
def test_feeds_that_lack_something(feeds: list[object], message: str) -> None:
    text = TWO if isinstance(feeds[0], dict) else "float[N, M] x"
    with pytest.raises(DataError, match=message):
        take_samples(feeds, inputs(text), None)  # type: ignore[arg-type]


def test_some_samples_in_another_order() -> None:
    data = Dataset({"x": np.arange(10).reshape(5, 2)}, np.arange(5))
    found = data.select([4, 0, 2])
    assert len(found) == 3
    assert [sample.tolist() for sample in found.columns["x"]] == [[8, 9], [0, 1], [4, 5]]
    assert found.labels is not None
    assert found.labels.tolist() == [4, 0, 2]
    assert data.select([]).labels is not None
    assert Dataset(data.columns).select([1]).labels is None
    assert [sample.tolist() for sample in found.select([2]).columns["x"]] == [[4, 5]]
