"""The plain convolutional network with a tenth of its parameters, which has learned from the larger one."""

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from digits import Split
from digits_cnn import Net, export
from graphopt.compression.distilling import Distillation, distill
from graphopt.feeds.data import Dataset
from graphopt.model import proto
from training import weights

DESCRIPTION = "the plain CNN with a tenth of its parameters, distilled from it"

TEACHER = Path(__file__).with_name("digits_cnn.onnx")

CHANNELS = (4, 8, 9)

LEARNING: dict[str, Any] = {"epochs": 100, "rate": 1e-2, "batch": 64, "labels": True}


def build(split: Split) -> onnx.ModelProto:
    """Train and export; input and output are those of the teacher, `digits_cnn`."""
    torch.set_num_threads(1)
    return proto(learn(split, seed=0, alpha=0.5).model)


def learn(split: Split, seed: int, alpha: float) -> Distillation:
    """A student that starts from random weights; `alpha` is the share of labels, 1 for no teacher."""
    data = Dataset({"image": split.images}, split.labels)
    return distill(untrained(seed), TEACHER, data, seed=seed, alpha=alpha, **LEARNING)


def untrained(seed: int) -> ir.Model:
    """A student that knows nothing."""
    torch.manual_seed(seed)
    return ir.from_proto(export(weights(Net(CHANNELS)), "digits_student"))
