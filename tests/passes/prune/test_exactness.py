"""Removing channels of whole models is the same as not seeing them."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.compiling.building import read
from graphopt.compression.pruner import prepare
from graphopt.model import normalise
from light import light_models
from tests.conftest import ZOO_MODELS, random_feeds
from tests.passes.prune.checking import check_exact

MODELS = sorted((Path(__file__).parents[3] / "models").glob("*.onnx"))
LIGHT = ("densenet121", "inception_v2", "shufflenet", "squeezenet")
"""Light models whose channels are joined in ways that the others lack."""

DEEP = 2e-4
"""Relative to the largest output: sums of many layers in another order."""

FREE = {"silero_vad_16k_op15": 512}
"""The size of free dimensions, where 4 is too small."""

NOT_FLOAT = {"mobilenet_v2_1.0_224_qdq", "shufflenet-v2-12-int8", "superres_prepost_op18"}


def prepared(path: Path) -> ir.Model:
    model = read(path)
    normalise(model)
    prepare(model)
    return model


def feeds(model: ir.Model, free: int = 4) -> dict[str, np.ndarray]:
    return random_feeds(model, free=free)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_of_this_repository(path: Path) -> None:
    model = prepared(path)
    assert check_exact(model, feeds=feeds(model), tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_light_models(name: str, tmp_path: Path) -> None:
    model = prepared(light_models(tmp_path, (name,))[f"light_{name}"])
    assert check_exact(model, ratios=(0.4,), feeds=feeds(model), tolerance=DEEP, alone=1)


@pytest.mark.zoo
@pytest.mark.parametrize(
    "path", [each for each in ZOO_MODELS if each.stem not in NOT_FLOAT], ids=lambda path: path.stem
)
def test_real_models(path: Path) -> None:
    model = prepared(path)
    check_exact(model, (0.3,), feeds(model, FREE.get(path.stem, 4)), DEEP, alone=2)
