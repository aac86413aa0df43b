"""Images made of images."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.training.distillation.augmentation import Images, augment, suitable
from tests.conftest import make_model

CHANNELS_FIRST, CHANNELS_LAST = Images("x", 1, 2, 3), Images("x", 3, 1, 2)
PIXELS = np.arange(6 * 3 * 16 * 16, dtype=np.float32).reshape(6, 3, 16, 16)


def model(*shapes: str, dtype: str = "float") -> ir.Model:
    inputs = ", ".join(f"{dtype}[{shape}] x{number}" for number, shape in enumerate(shapes))
    return make_model(f"agraph ({inputs}) => ({dtype}[{shapes[0]}] y) {{ y = Identity(x0) }}")


@pytest.mark.parametrize(
    ("shapes", "found", "names"),
    [
        (["N,3,32,32"], Images("x0", 1, 2, 3), ("shift", "flip")),
        (["N,32,32,3"], Images("x0", 3, 1, 2), ("shift", "flip")),
        (["N,1,8,8"], Images("x0", 1, 2, 3), ("shift",)),
        (["N,3,H,W"], Images("x0", 1, 2, 3), ("shift", "flip")),
        (["N,3,4,32"], None, ()),
        (["N,4,32,32"], None, ()),
        (["N,128"], None, ()),
        (["N,3,32,32", "N,5"], Images("x0", 1, 2, 3), ("shift", "flip")),
        (["N,3,32,32", "N,3,32,32"], None, ()),
    ],
)
def test_which_input_has_images(shapes: list[str], found: Images | None, names: tuple[str, ...]) -> None:
    assert Images.of(model(*shapes)) == found
    assert suitable(model(*shapes)) == names


def test_integers_are_no_images() -> None:
    assert Images.of(model("N,3,32,32", dtype="int64")) is None


@pytest.mark.parametrize("name", ["shift", "flip", "mix"])
def test_layouts_are_treated_alike(name: str) -> None:
    """The same numbers give the same images, whichever axis has the channels; feeds stay as they are."""
    first = augment({"x": PIXELS}, CHANNELS_FIRST, [name], np.random.default_rng(5))["x"]
    moved = np.moveaxis(PIXELS, 1, -1)
    last = augment({"x": moved}, CHANNELS_LAST, [name], np.random.default_rng(5))["x"]
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), first)
    assert first.dtype == np.float32
    assert not np.array_equal(first, PIXELS)
    assert PIXELS.reshape(-1)[-1] == PIXELS.size - 1


def test_shifted_images_continue_their_border() -> None:
    found = augment({"x": PIXELS}, CHANNELS_FIRST, ["shift"], np.random.default_rng(0))["x"]
    for image, original in zip(found, PIXELS, strict=True):
        offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
        padded = np.pad(original, ((0, 0), (2, 2), (2, 2)), mode="edge")
        cuts = [padded[:, 2 + down : 18 + down, 2 + right : 18 + right] for down, right in offsets]
        assert any(np.array_equal(image, cut) for cut in cuts)


def test_flipped_images_are_mirrored_or_not() -> None:
    found = augment({"x": PIXELS}, CHANNELS_FIRST, ["flip"], np.random.default_rng(0))["x"]
    mirrored = [
        np.array_equal(image, original[..., ::-1]) for image, original in zip(found, PIXELS, strict=True)
    ]
    same = [np.array_equal(image, original) for image, original in zip(found, PIXELS, strict=True)]
    assert [a != b for a, b in zip(mirrored, same, strict=True)] == [True] * len(PIXELS)
    assert any(mirrored)


def test_mixed_images_lie_between_two() -> None:
    found = augment({"x": PIXELS}, CHANNELS_FIRST, ["mix"], np.random.default_rng(0))["x"]
    assert found.min() >= PIXELS.min()
    assert found.max() <= PIXELS.max()


def test_nothing_is_done_without_images_or_names() -> None:
    for images, names in ((None, ["flip"]), (CHANNELS_FIRST, [])):
        assert augment({"x": PIXELS}, images, names, np.random.default_rng(0))["x"] is PIXELS
