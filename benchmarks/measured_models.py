"""The models that benchmarks measure: the real ones of the folder that GRAPHOPT_ZOO names, and the light ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from light import light_models

DIMS: Mapping[str, Mapping[str, int]] = {
    "minilm_l6_v2": {"batch": 1, "seq": 128},
    "stories260K_llama": {"B": 1, "T": 64},
    "superres_espcn_core": {"H": 224, "W": 224},
    "silero_vad_16k_op15": {"batch": 1, "sequence": 576},
}
"""Sizes of named dimensions other than a free first one."""

SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "ch_PP-OCRv3_det_infer": {"x": (1, 3, 320, 320)},
}
"""Whole shapes of inputs whose dimensions have no names."""


def model_paths(light: bool, names: Sequence[str] = ()) -> list[Path]:
    """Those whose names contain one of `names`, or all; `light` adds the light models."""
    zoo = os.environ.get("GRAPHOPT_ZOO")
    paths = sorted((Path(zoo) / "models").glob("*.onnx")) if zoo else []
    if light:
        paths += list(light_models(Path("build/light")).values())
    return [path for path in paths if not names or any(part in path.stem for part in names)]


def binding(path: Path) -> dict[str, Any]:
    """The options that fix the free dimensions of a model."""
    return {"dims": dict(DIMS.get(path.stem, {})), "input_shapes": dict(SHAPES.get(path.stem, {}))}
