from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from graphopt.errors import DataError
from graphopt.feeds.data import load_dataset
from graphopt.feeds.images import PREPROCESS
from tests.conftest import make_model


def inputs(shape: str) -> list[ir.Value]:
    model = make_model(f"g (float[{shape}] image) => (float[{shape}] out) {{ out = Relu(image) }}")
    return list(model.graph.inputs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two flat images: red 10x10 and grey 20x10, with labels."""
    (tmp_path / "img").mkdir()
    Image.new("RGB", (10, 10), (255, 0, 0)).save(tmp_path / "img" / "a.png")
    Image.new("L", (20, 10), 127).save(tmp_path / "img" / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,7\na.png,3\n")
    return tmp_path


@pytest.mark.parametrize(("shape", "expected"), [("N, 3, 8, 6", (1, 3, 8, 6)), ("N, 8, 6, 3", (1, 8, 6, 3))])
def test_layout_and_size_follow_the_input(folder: Path, shape: str, expected: tuple[int, ...]) -> None:
    data = load_dataset(folder, inputs(shape), preprocess="raw")
    assert [batch["image"].shape for batch in data.batches()] == [expected] * 2


def test_labels_follow_the_files(folder: Path) -> None:
    labels = load_dataset(folder, inputs("N, 3, 8, 8"), preprocess="raw").labels
    assert labels is not None
    assert labels.tolist() == [3, 7]


def test_grey_input_and_free_size(folder: Path) -> None:
    grey = list(load_dataset(folder, inputs("N, 1, H, W"), preprocess="unit").batches())[1]["image"]
    assert grey.shape == (1, 1, 10, 20)
    np.testing.assert_allclose(grey, 127 / 255, rtol=1e-6)


def test_imagenet_standardises_each_channel(folder: Path) -> None:
    red = next(load_dataset(folder, inputs("N, 3, 8, 8"), preprocess="imagenet").batches())["image"]
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(red[0, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("raw", 0, 255), ("unit", 0, 1), ("signed", -1, 1), ("centred", -127 / 128, 1)]
)
def test_ranges(name: str, low: float, high: float) -> None:
    pixels = np.array([[[0.0, 0.0, 0.0], [255.0, 255.0, 255.0]]], np.float32)
    prepared = PREPROCESS[name](pixels)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose([prepared.min(), prepared.max()], [low, high], rtol=1e-6)


def test_images_need_a_preset(folder: Path) -> None:
    with pytest.raises(DataError, match="choose --preprocess from raw, unit"):
        load_dataset(folder, inputs("N, 3, 8, 8"))


def test_images_need_four_dimensions(folder: Path) -> None:
    data = load_dataset(folder, inputs("N, 3"), preprocess="raw")
    with pytest.raises(DataError, match="images need four dimensions"):
        next(data.batches())


def test_damaged_image_is_named(folder: Path) -> None:
    (folder / "img" / "a.png").write_bytes(b"no image")
    data = load_dataset(folder, inputs("N, 3, 8, 8"), preprocess="raw")
    with pytest.raises(DataError, match=r"cannot read image .*a\.png"):
        next(data.batches())


def test_a_missing_label_is_refused(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\na.png,3\n")
    with pytest.raises(DataError, match=r"labels\.csv: needs columns file and label.*b\.png"):
        load_dataset(folder, inputs("N, 3, 8, 8"), preprocess="raw")
