"""Real models compile for GPUs; on one, or an emulated one, they are verified too."""

import os
from pathlib import Path

import pytest

from graphopt import api
from graphopt.backends.cuda.nvcc import find_nvcc
from graphopt.backends.targets import Target
from measured_models import binding

FOLDER = Path(os.environ.get("GRAPHOPT_ZOO", "")) / "models"
VERIFIED = (
    "cifar10_resnet20",
    "gtcrn",
    "mlperftiny_kws_dscnn_fp32",
    "mlperftiny_resnet8_large_fp32",
    "mlperftiny_vww_mbv1_fp32",
    "mnist",
    "shufflenet-v2_fp32_from_int8",
    "shufflenet-v2-12-int8",
    "silero_vad_16k_op15",
    "stories260K_llama",
)
"""Those that an emulated GPU runs in seconds."""

COMPILED = (
    *VERIFIED,
    "basic_pitch_nmp",
    "ch_PP-OCRv3_det_infer",
    "cifar10_resnet56",
    "gtcrn_simple",
    "minilm_l6_v2",
    "mobilenet_v2_1.0_224_fp32_from_int8",
    "mobilenet_v2_1.0_224_qdq",
    "squeezenet1.1_ncnnfp16",
    "superres_espcn_core",
    "ultraface_version-RFB-320",
    "ultraface_version-RFB-320_simplified",
)

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


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", COMPILED)
def test_models_compile(tmp_path: Path, name: str, precision: str) -> None:
    """For both generations of tensor cores."""
    path, targets = model(name), "cuda:sm_80,cuda:sm_90"
    done = api.build(
        path, tmp_path / "model.gopt", target=targets, check=False, precision=precision, **binding(path)
    )
    assert done.kernels
