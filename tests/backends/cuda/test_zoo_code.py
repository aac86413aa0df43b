"""What NVIDIA's compiler makes of real models, without a GPU."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from graphopt import api
from graphopt.backends.cuda import nvcc
from measured_models import binding
from tests.backends.cuda.test_machine_code import SPILLS
from tests.backends.cuda.test_zoo import VERIFIED, model

COMPILED = (
    *VERIFIED,
    "basic_pitch_nmp",
    "ch_PP-OCRv3_det_infer",
    "cifar10_resnet56",
    "gtcrn_simple",
    "minilm_l6_v2",
    "mobilenet_v2_1.0_224_fp32_from_int8",
    "squeezenet1.1_ncnnfp16",
    "superres_espcn_core",
    "ultraface_version-RFB-320",
    "ultraface_version-RFB-320_simplified",
)

pytestmark = [pytest.mark.zoo, pytest.mark.slow]


@dataclass
class Compiled:
    """What nvcc has read from now on, and the bytes that each kernel keeps in local memory for want of registers."""

    source: str = ""
    spills: list[int] = field(default_factory=list)

    def run(self, command: Sequence[str], folder: Path) -> None:
        done = subprocess.run(
            [*command, "-Xptxas=-v"], cwd=folder, check=True, capture_output=True, text=True
        )
        self.source += "".join(file.read_text() for file in folder.glob("*.cu"))
        self.spills += map(int, SPILLS.findall(done.stderr))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    monkeypatch.setattr(nvcc, "run_tool", (found := Compiled()).run)
    return found


FEW_BYTES = 8
"""An address that waits for the end of a kernel."""


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", COMPILED)
def test_models_compile(compiled: Compiled, tmp_path: Path, name: str, precision: str) -> None:
    """For both generations of tensor cores, which float16 and bytes are multiplied by, within their registers."""
    path, targets = model(name), "cuda:sm_80,cuda:sm_90"
    done = api.build(
        path, tmp_path / "model.gopt", target=targets, check=False, precision=precision, **binding(path)
    )
    assert len(compiled.spills) >= done.kernels
    assert max(compiled.spills) <= FEW_BYTES
    assert ("mma.sync" in compiled.source or "wgmma" in compiled.source) == (
        precision == "fp16" or bool(done.integer_share)
    )
