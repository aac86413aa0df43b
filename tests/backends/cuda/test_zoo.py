"""Real models are verified on a GPU, or an emulated one."""

import os
from pathlib import Path

import pytest

from graphopt import api
from graphopt.backends.targets import Target
from measured_models import binding
from tests.backends.cuda import emulation

FOLDER = Path(os.environ.get("GRAPHOPT_ZOO", "")) / "models"
VERIFIED = (
    "cifar10_resnet20",
    "gtcrn",
    "mlperftiny_kws_dscnn_fp32",
    "mlperftiny_resnet8_large_fp32",
    "mlperftiny_vww_mbv1_fp32",
    "mnist",
    "mobilenet_v2_1.0_224_qdq",
    "shufflenet-v2_fp32_from_int8",
    "shufflenet-v2-12-int8",
    "silero_vad_16k_op15",
    "stories260K_llama",
)
"""Those that an emulated GPU runs in seconds."""

ROUNDED = (
    "cifar10_resnet20",
    "gtcrn",
    "mlperftiny_kws_dscnn_fp32",
    "mlperftiny_vww_mbv1_fp32",
    "shufflenet-v2_fp32_from_int8",
    "silero_vad_16k_op15",
    "ultraface_version-RFB-320_simplified",
)
"""Those that are verified in float16, too: odd channels, shuffled and joined ones, recurrences, several heads."""

pytestmark = [pytest.mark.zoo, pytest.mark.slow]


def model(name: str) -> Path:
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        pytest.skip("GRAPHOPT_ZOO does not have it")
    return path


@pytest.mark.parametrize("name", VERIFIED)
def test_models_are_verified(gpu: Target, tmp_path: Path, name: str) -> None:
    path = model(name)
    assert api.build(path, tmp_path / "model.gopt", target=gpu.name, **binding(path)).verdict.passed


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_models_are_verified(gpu: Target, tmp_path: Path, name: str) -> None:
    path = model(name)
    done = api.build(path, tmp_path / "model.gopt", target=gpu.name, precision="fp16", **binding(path))
    assert done.verdict.passed


BEFORE = (
    ("mlperftiny_vww_mbv1_fp32", "fp16"),
    ("shufflenet-v2-12-int8", "fp32"),
    ("stories260K_llama", "fp16"),
    ("gtcrn", "tf32"),
)
"""Models and precisions for kernels of sm_80: halves, bytes, heads, odd channels."""


@pytest.mark.parametrize(("name", "precision"), BEFORE)
def test_models_of_the_generation_before_are_verified(name: str, precision: str, tmp_path: Path) -> None:
    path, out = model(name), tmp_path / "model.gopt"
    if reason := emulation.missing():
        pytest.skip(reason)
    with emulation.emulated_gpu(generation=emulation.AMPERE):
        done = api.build(path, out, target="cuda:sm_80", precision=precision, **binding(path))
    assert done.verdict.passed
