"""Architectures that graphopt was not made with: `python benchmarks/timm_models.py FOLDER [NAME...]` writes ONNX models of timm's, with random weights.

It needs `pip install timm`. `python benchmarks/latency.py --folder FOLDER` times them next to the peers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch

NAMES = (
    "botnet26t_256", "coat_tiny", "convit_tiny", "convnext_atto", "davit_tiny", "edgenext_xx_small", "efficientformer_l1",
    "efficientnet_b0", "efficientvit_m0", "fastvit_t8", "focalnet_tiny_srf", "ghostnet_100", "lcnet_050", "levit_128s",
    "maxvit_pico_rw_256", "mixer_s32_224", "mobilenetv4_conv_small", "mobilevit_xxs", "poolformer_s12", "pvt_v2_b0",
    "regnety_002", "sequencer2d_s", "skresnet18", "starnet_s1", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224",
    "tinynet_e", "twins_svt_small", "visformer_tiny", "xcit_nano_12_p16_224",
)  # fmt: skip
"""Small ones of thirty families: convolutional networks, transformers, mixers and what lies between."""

CLASSES = 100


def export(name: str, folder: Path) -> Path:
    """A batch of one image in the size that the architecture is made for. Weights are seeded."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    path = folder / f"{name}.onnx"
    example = torch.zeros(1, *model.default_cfg["input_size"])
    torch.onnx.export(model, (example,), path, opset_version=18, dynamo=False)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.names:
        print(export(name, chosen.folder), flush=True)


if __name__ == "__main__":
    main()
