"""Digits, a teacher that knows them, and students that could know them better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.datasets import load_digits

from graphopt.feeds.data import Dataset
from graphopt.model import load, normalise
from graphopt.training.distillation import Goal, Learned, Plan, distil, paired, run_size, split
from tests.conftest import make_model

MODELS = Path(__file__).parents[3] / "models"


def digits(count: int = 320) -> Dataset:
    """Images and labels."""
    found = load_digits()
    images = found.images[:count].astype(np.float32)[:, None]
    return Dataset({"image": images}, found.target[:count].astype(np.int64))


def shipped(name: str) -> ir.Model:
    """A model that ships, in normal form."""
    model = load(MODELS / f"{name}.onnx")
    normalise(model)
    return model


def disturbed(model: ir.Model, share: float = 0.3) -> ir.Model:
    """A copy whose weights are off by a share of their deviation."""
    copy, rng = model.clone(), np.random.default_rng(0)
    for name, array in floats(copy).items():
        if array.ndim > 1:
            noise = share * array.std() * rng.standard_normal(array.shape)
            put(copy, name, array + noise)
    return copy


def floats(model: ir.Model) -> dict[str, np.ndarray]:
    """All float initializers."""
    found = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    return {name: array for name, array in found.items() if array.dtype == np.float32}


def put(model: ir.Model, name: str, array: Any) -> None:
    """Replaces an initializer."""
    old = model.graph.initializers[name].const_value
    assert old is not None
    model.graph.initializers[name].const_value = ir.Tensor(np.asarray(array, old.numpy().dtype), name=name)


def line(**shapes: Any) -> ir.Model:
    """The smallest model that can learn: a product and a bias."""
    weights = {"w": np.zeros((4, 3), np.float32), "b": np.zeros(3, np.float32)} | shapes
    return make_model("line (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w) y = Add(h, b) }", **weights)


def learn(
    student: ir.Model, teacher: ir.Model, data: Dataset, goal: Goal | None = None, **plan: Any
) -> Learned:
    """Distillation in place, with a short plan."""
    wanted = Plan(**({"epochs": 2} | plan))
    original = paired(teacher, student)
    parts = split(data, run_size(student, original), wanted.seed)
    return distil(student, original, parts, goal or Goal(), wanted)
