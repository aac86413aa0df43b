"""Real models compile for GPUs; on one, or an emulated one, they are verified too."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphopt import api
from graphopt.backends.cuda import nvcc
from graphopt.backends.targets import Target
from measured_models import binding
from tests.backends.cuda.test_machine_code import SPILLS

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


@pytest.fixture
def spills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each kernel compiled from now on keeps in local memory for want of registers."""
    found: list[int] = []

    def run(command: Sequence[str], folder: Path) -> None:
        done = subprocess.run(
            [*command, "-Xptxas=-v"], cwd=folder, check=True, capture_output=True, text=True
        )
        found.extend(map(int, SPILLS.findall(done.stderr)))

    monkeypatch.setattr(nvcc, "run_tool", run)
    return found


FEW_BYTES = 8
"""An address that waits for the end of a kernel."""


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", COMPILED)
def test_models_compile(spills: list[int], tmp_path: Path, name: str, precision: str) -> None:
    """For both generations of tensor cores, within their registers."""
    path, targets = model(name), "cuda:sm_80,cuda:sm_90"
    done = api.build(
        path, tmp_path / "model.gopt", target=targets, check=False, precision=precision, **binding(path)
    )
    assert len(spills) >= done.kernels
    assert max(spills) <= FEW_BYTES
