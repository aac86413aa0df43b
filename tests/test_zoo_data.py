"""Data loading, random feeds and the reference on real models and real data."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.islands import verify_islands
from graphopt.accuracy.verify import reference, verify
from graphopt.feeds.data import load_dataset
from graphopt.feeds.random_feeds import random_feeds
from tests.conftest import ZOO_MODELS

pytestmark = pytest.mark.zoo

CUSTOM_OPERATORS = "superres_prepost_op18"
MODELS = [path.stem for path in ZOO_MODELS if path.stem != CUSTOM_OPERATORS]
# Models whose free dimensions are not happy with the usual size.
SIZES = {"silero_vad_16k_op15": 576}


@pytest.mark.parametrize(
    ("model", "data", "preprocess", "accuracy"),
    [
        ("cifar10_resnet20", "cifar10_test_jpeg_5k.npz", "imagenet", 0.81),
        ("mobilenet_v2_1.0_224_fp32_from_int8", "imagenet_sample", "signed", 0.875),
    ],
)
def test_accuracy_on_real_images(zoo: Path, model: str, data: str, preprocess: str, accuracy: float) -> None:
    path = zoo / "models" / f"{model}.onnx"
    dataset = load_dataset(zoo / "data" / data, list(ir.load(path).graph.inputs), preprocess)
    run = reference(path, optimised=True)
    batch, limit = 20, 200
    assert dataset.labels is not None
    found = [
        int(row.argmax())
        for feeds in dataset.batches(batch, limit)
        for row in next(iter(run(feeds).values()))
    ]
    assert np.mean(found == dataset.labels[:limit]) == pytest.approx(accuracy, abs=0.06)


@pytest.mark.parametrize("name", MODELS)
def test_random_feeds_suit_every_model(zoo: Path, name: str) -> None:
    path = zoo / "models" / f"{name}.onnx"
    model = ir.load(path)
    feeds = random_feeds(model, size=SIZES.get(name, 64))
    verdict = verify(path, reference(model), [feeds])
    assert verdict.passed, str(verdict)


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_qdq", "shufflenet-v2-12-int8"])
def test_onnx_runtimes_integer_kernels_pass_as_islands(zoo: Path, name: str) -> None:
    model = ir.load(zoo / "models" / f"{name}.onnx")
    verdict = verify_islands(model, lambda part: reference(part, optimised=True), [random_feeds(model)])
    assert verdict.passed, str(verdict)
    assert len(verdict.outputs) > 60


def test_custom_operators_cannot_be_verified(zoo: Path) -> None:
    path = zoo / "models" / f"{CUSTOM_OPERATORS}.onnx"
    verdict = verify(path, lambda feeds: {}, [])
    assert not verdict.verified
    assert "ONNX Runtime" in str(verdict)
