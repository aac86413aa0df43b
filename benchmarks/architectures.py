"""Torch networks of many architectures with random weights as ONNX, by each of torch's exporters.

`python benchmarks/architectures.py FOLDER [NAME ...]` writes them and prints what they hold.

The compact ones need torch, those of torchvision at their real widths torchvision too, the default exporter onnxscript.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

import convolutional_nets as convolutional
import pixel_nets as pixel
import sequence_nets as sequences
from random_weights import randomized

OPSET = 18
BATCH = 2
"""Examples that the exporters see; one would be taken for a fixed size."""

EXPORTERS = ("dynamo", "script")
Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network in evaluation mode, example inputs by name, and their free dimensions by axis."""

    module: nn.Module
    inputs: Inputs
    free: Mapping[int, str]


def _images(build: Callable[[], nn.Module], size: int = 32) -> Callable[[], Architecture]:
    def make() -> Architecture:
        inputs = {"image": torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1))}
        return Architecture(randomized(build, inputs["image"]), inputs, {0: "batch"})

    return make


def _tokens(build: Callable[[], nn.Module], masked: bool = False) -> Callable[[], Architecture]:
    def make() -> Architecture:
        shape, generator = (BATCH, 12), torch.Generator().manual_seed(1)
        inputs = {"tokens": torch.randint(sequences.VOCABULARY, shape, generator=generator)}
        if masked:
            inputs["mask"] = (torch.arange(shape[1]) < torch.tensor([[9], [12]])).long()
        return Architecture(randomized(build, inputs["tokens"]), inputs, {0: "batch", 1: "sequence"})

    return make


def _torchvision(name: str, size: int = 64) -> Callable[[], Architecture]:
    return _images(lambda: getattr(torchvision_models(), name)(weights=None), size)


def torchvision_models() -> Any:
    """`torchvision.models`, from wheels for another kind of torch too: they lack operators that no model here has."""
    try:
        from torchvision import models
    except RuntimeError:
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        from torchvision import models
    return models


COMPACT: Mapping[str, Callable[[], Architecture]] = {
    "resnet": _images(convolutional.resnet),
    "resnext": _images(convolutional.resnext),
    "vgg": _images(convolutional.vgg),
    "densenet": _images(convolutional.densenet),
    "mobilenet_v2": _images(convolutional.mobilenet_v2),
    "mobilenet_v3": _images(convolutional.mobilenet_v3),
    "efficientnet": _images(convolutional.efficientnet),
    "shufflenet": _images(convolutional.shufflenet),
    "groupnorm": _images(convolutional.groupnorm),
    "convnext": _images(convolutional.convnext),
    "unet": _images(pixel.UNet),
    "super_resolution": _images(pixel.SuperResolution),
    "detector": _images(pixel.Detector, 64),
    "vit": _images(sequences.Vit),
    "bert": _tokens(sequences.Bert, masked=True),
    "gpt": _tokens(sequences.Gpt),
    "llama": _tokens(sequences.Llama),
    "lstm": _tokens(lambda: sequences.Recurrent(nn.LSTM)),
    "gru": _tokens(lambda: sequences.Recurrent(nn.GRU)),
}
FULL: Mapping[str, Callable[[], Architecture]] = {
    "torchvision_resnet18": _torchvision("resnet18"),
    "torchvision_resnet50": _torchvision("resnet50"),
    "torchvision_densenet121": _torchvision("densenet121"),
    "torchvision_mobilenet_v2": _torchvision("mobilenet_v2"),
    "torchvision_mobilenet_v3_small": _torchvision("mobilenet_v3_small"),
    "torchvision_efficientnet_b0": _torchvision("efficientnet_b0"),
    "torchvision_shufflenet_v2_x1_0": _torchvision("shufflenet_v2_x1_0"),
    "torchvision_vgg11_bn": _torchvision("vgg11_bn", 224),
    "torchvision_vit_b_16": _torchvision("vit_b_16", 224),
}
ARCHITECTURES: Mapping[str, Callable[[], Architecture]] = {**COMPACT, **FULL}
"""Networks by name; each call builds one anew, with the same weights."""


def export(name: str, folder: Path, exporter: str = "dynamo") -> Path:
    """Write FOLDER/NAME.EXPORTER.onnx, if it is missing."""
    path = folder / f"{name}.{exporter}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(ARCHITECTURES[name](), path, exporter)
    return path


def write(architecture: Architecture, path: Path, exporter: str) -> None:
    """Export a network, weights inside the file, free dimensions by their names."""
    free = {name: dict(architecture.free) for name in architecture.inputs}
    how: Mapping[str, Mapping[str, Any]] = {
        "dynamo": {"dynamic_shapes": tuple(free.values()), "external_data": False},
        "script": {"dynamic_axes": free},
    }
    unfinished = path.with_suffix(".part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            architecture.module,
            tuple(architecture.inputs.values()),
            unfinished,
            input_names=list(architecture.inputs),
            output_names=["output"],
            opset_version=OPSET,
            dynamo=exporter == "dynamo",
            verbose=False,
            **how[exporter],
        )
    unfinished.rename(path)


def departure(architecture: Architecture, path: Path) -> float:
    """The largest difference of ONNX Runtime from torch, over the largest number of torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in architecture.inputs.items()})
    with torch.no_grad():
        expected = architecture.module(*architecture.inputs.values()).numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def described(path: Path) -> str:
    """Nodes, size and operators of a file."""
    graph = onnx.load(path).graph
    operators = Counter(node.op_type for node in graph.node)
    counts = ", ".join(f"{operator} {count}" for operator, count in operators.most_common())
    return f"{len(graph.node)} nodes, {path.stat().st_size / 1e6:.1f} MB: {counts}"


def main() -> None:
    """Write the networks and print a line about each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ARCHITECTURES))
    options = parser.parse_args()
    for name in options.names or ARCHITECTURES:
        architecture = ARCHITECTURES[name]()
        for exporter in EXPORTERS:
            path = export(name, options.folder, exporter)
            error = departure(architecture, path)
            print(f"{path.name}: max_rel_err {error:.1e}, {described(path)}", flush=True)


if __name__ == "__main__":
    main()
