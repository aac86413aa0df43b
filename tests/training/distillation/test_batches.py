"""Batches that depend on nothing but seed and step."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.training.distillation import batches, split
from graphopt.training.distillation.augmentation import Images
from graphopt.training.distillation.batches import Batch, Source, in_order, stream
from graphopt.training.distillation.teacher import Teacher
from tests.conftest import make_model

IMAGES = Images("x", 1, 2, 3)
DATA = Dataset(
    {"x": np.arange(20 * 64, dtype=np.float32).reshape(20, 1, 8, 8)}, np.arange(20, dtype=np.int64) % 7
)


def teacher(folder: Path, size: object = "N", names: tuple[str, ...] = ("h", "y")) -> Teacher:
    text = f"agraph (float[{size},1,8,8] x) => (float[{size},1,8,8] y) {{ h = Neg(x) y = Mul(h, h) }}"
    model = make_model(text)
    model.graph.node(0).outputs[0].shape = model.graph.outputs[0].shape
    model.graph.node(0).outputs[0].dtype = model.graph.outputs[0].dtype
    return Teacher.of(model, names, folder / "teacher.onnx")


def source(folder: Path, augmentation: tuple[str, ...] = ("shift",), **changes: object) -> Source:
    return replace(Source(DATA, teacher(folder), 6, IMAGES, augmentation, 0), **changes)  # type: ignore[arg-type]


def same(first: Batch, second: Batch) -> bool:
    return all(
        np.array_equal(one, two)
        for one, two in (
            (first.feeds["x"], second.feeds["x"]),
            (first.targets["y"], second.targets["y"]),
            (first.labels, second.labels),
        )
    )


def test_an_epoch_has_every_sample_at_most_once_in_another_order(tmp_path: Path) -> None:
    plain = source(tmp_path, ())
    assert plain.steps == 3
    epochs = []
    for epoch in range(2):
        found = [plain.batch(3 * epoch + number) for number in range(3)]
        epochs.append(np.concatenate([batch.feeds["x"][:, 0, 0, 0] for batch in found]))
        assert len(set(epochs[-1])) == 18
    assert not np.array_equal(*epochs)


def test_labels_and_targets_belong_to_their_samples(tmp_path: Path) -> None:
    for each in (source(tmp_path), source(tmp_path, ()), source(tmp_path, ()).remembering()):
        batch = each.batch(4)
        np.testing.assert_array_equal(batch.targets["y"], batch.feeds["x"] ** 2)
        np.testing.assert_array_equal(batch.targets["h"], -batch.feeds["x"])
    numbers = (batch.feeds["x"][:, 0, 0, 0] / 64).astype(int)
    np.testing.assert_array_equal(batch.labels, numbers % 7)


def test_a_batch_is_a_function_of_its_step(tmp_path: Path) -> None:
    one, other = source(tmp_path), source(tmp_path)
    assert same(one.batch(7), other.batch(7))
    assert not same(one.batch(7), one.batch(8))
    assert not same(one.batch(7), source(tmp_path, seed=1).batch(7))


def test_processes_share_a_batch_out(tmp_path: Path) -> None:
    whole = source(tmp_path, ()).batch(2)
    parts = [source(tmp_path, (), share=(number, 2)).batch(2) for number in range(2)]
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part.feeds["x"], whole.feeds["x"][number::2])


def test_other_processes_make_the_same_batches(tmp_path: Path) -> None:
    here = source(tmp_path)
    with stream(here, 5, 2) as made:
        found = list(islice(made, 7))
    assert all(same(batch, here.batch(5 + number)) for number, batch in enumerate(found))


def test_a_teacher_is_asked_once_about_what_never_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source(tmp_path).remembering().known is None
    assert source(tmp_path, ("shift",), images=None).remembering().known is not None
    found = source(tmp_path, ()).remembering()
    assert found.known is not None
    np.testing.assert_array_equal(found.known["h"], -DATA.columns["x"][:])  # type: ignore[index]
    monkeypatch.setattr(batches, "MOST_BYTES", 1000)
    assert source(tmp_path, ()).remembering().known is None


@pytest.mark.parametrize("size", ["N", 2, 3])
def test_a_teacher_may_take_a_fixed_number_of_samples(tmp_path: Path, size: object) -> None:
    asked = teacher(tmp_path, size)
    assert asked.size == (None if size == "N" else size)
    x = np.array(DATA.columns["x"][:6])
    np.testing.assert_array_equal(asked.values({"x": x})["y"], x**2)


def test_nothing_is_asked_of_a_teacher_without_names(tmp_path: Path) -> None:
    assert teacher(tmp_path, names=()).values({"x": np.zeros((2, 9), np.float32)}) == {}


def test_data_that_does_not_fit_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not fit the teacher"):
        teacher(tmp_path).values({"x": np.zeros((2, 9), np.float32)})
    model = make_model("agraph (float[N,4] x) => (float[D] y) { y = ReduceSum<keepdims = 0>(x) }")
    with pytest.raises(GraphoptError, match="'y' has no samples"):
        Teacher.of(model, ["y"], tmp_path / "m.onnx").values({"x": np.zeros((2, 4), np.float32)})


def test_parts_of_a_batch(tmp_path: Path) -> None:
    batch = source(tmp_path, ()).batch(0)
    assert [len(part) for part in batch.parts(4)] == [4, 2]
    assert [len(part) for part in batch.parts(None)] == [6]
    assert same(next(batch.parts(6)), batch)


def test_all_in_order(tmp_path: Path) -> None:
    found = list(in_order(DATA, teacher(tmp_path), 8))
    assert [len(batch) for batch in found] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([batch.feeds["x"] for batch in found]), DATA.columns["x"])


@pytest.mark.parametrize(
    ("count", "multiple", "sizes"),
    [(20, 1, (18, 2)), (8, 1, (7, 1)), (10_000, 1, (9744, 256)), (50, 4, (44, 4))],
)
def test_some_samples_only_judge(count: int, multiple: int, sizes: tuple[int, int]) -> None:
    data = Dataset({"x": np.arange(count)}, np.arange(count))
    learned, judging = split(data, multiple, 3)
    assert (len(learned), len(judging)) == sizes
    assert not {*learned.columns["x"]} & {*judging.columns["x"]}
    np.testing.assert_array_equal(np.array(list(learned.columns["x"])), learned.labels)
    assert [*split(data, multiple, 3)[1].columns["x"]] == [*judging.columns["x"]]


@pytest.mark.parametrize(("count", "multiple"), [(7, 1), (0, 1), (19, 10)])
def test_too_few_samples(count: int, multiple: int) -> None:
    with pytest.raises(DataError, match="or more samples are needed"):
        split(Dataset({"x": np.arange(count)}), multiple, 0)
