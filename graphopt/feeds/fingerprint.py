"""A hash of all that a long search or training depends on, so that it goes on only where it was left."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from graphopt.feeds.data import Dataset


def fingerprint(model: ir.Model, options: object, *data: Dataset | None) -> str:
    """Of a model with its weights, of options by their `repr`, and of every sample and label."""
    digest = hashlib.sha256(repr(options).encode())
    for name, value in model.graph.initializers.items():
        digest.update(name.encode())
        if value.const_value is not None:
            digest.update(np.ascontiguousarray(value.const_value.numpy()).tobytes())
    for node in model.graph:
        digest.update(str(node).encode())
    for each in data:
        if each is not None:
            for name, column in each.columns.items():
                digest.update(name.encode())
                for sample in column:
                    digest.update(np.ascontiguousarray(sample).tobytes())
            digest.update(b"" if each.labels is None else each.labels.tobytes())
    return digest.hexdigest()
