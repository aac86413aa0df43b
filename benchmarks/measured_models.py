"""The models that benchmarks measure: the real ones of the folder that GRAPHOPT_ZOO names, and the light ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

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

CLASSIFIERS = (
    "cifar10_", "light_", "mlperftiny_", "mnist", "mobilenet_v2_1.0_224_fp32_from_int8",
    "shufflenet-v2_fp32_from_int8", "squeezenet1.1",
)  # fmt: skip
"""Beginnings of the names of those that classify images and sounds."""


def model_paths(light: bool, names: Sequence[str] = ()) -> list[Path]:
    """Those whose names contain one of `names`, or all; `light` adds the light models."""
    zoo = os.environ.get("GRAPHOPT_ZOO")
    paths = sorted((Path(zoo) / "models").glob("*.onnx")) if zoo else []
    if light:
        paths += list(light_models(Path("build/light")).values())
    return _named(paths, names)


def models_of(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The ONNX models of any folder whose names contain one of `names`, or all."""
    return _named(sorted(folder.glob("*.onnx")), names)


def _named(paths: Sequence[Path], names: Sequence[str]) -> list[Path]:
    return [path for path in paths if not names or any(part in path.stem for part in names)]


def binding(path: Path) -> dict[str, Any]:
    """The options that fix the free dimensions of a model."""
    return {"dims": dict(DIMS.get(path.stem, {})), "input_shapes": dict(SHAPES.get(path.stem, {}))}


def batched(path: Path, size: int, folder: Path = Path("build/batched")) -> Path:
    """A classifier whose inputs hold `size` examples; written to `folder` when missing.

    A batch of one is also written out in the shapes of Reshape nodes, which are adjusted.
    """
    out = folder / f"{path.stem}_{size}.onnx"
    if not out.exists():
        model = onnx.load(path)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for value in (*model.graph.input, *model.graph.output):
            if value.name not in constants:
                value.type.tensor_type.shape.dim[0].dim_value = size
        for name in {node.input[1] for node in model.graph.node if node.op_type == "Reshape"} & set(
            constants
        ):
            shape = numpy_helper.to_array(constants[name]).copy()
            shape[:1] = np.where(shape[:1] == 1, size, shape[:1])
            constants[name].CopyFrom(numpy_helper.from_array(shape, name))
        del model.graph.value_info[:]
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, out)
    return out
