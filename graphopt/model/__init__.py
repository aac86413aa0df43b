"""ONNX models in memory: reading, checking, binding dimensions, normal form, writing, statistics."""

from graphopt.model.checking import validate
from graphopt.model.dims import bind_dims, bind_first_dims, bind_values, free_dims
from graphopt.model.inference import infer_shapes
from graphopt.model.normal import freeze_defaults, frozen_notice, normalise
from graphopt.model.reading import load
from graphopt.model.statistics import Statistics, statistics
from graphopt.model.writing import proto, save, text

__all__ = [
    "Statistics",
    "bind_dims",
    "bind_first_dims",
    "bind_values",
    "free_dims",
    "freeze_defaults",
    "frozen_notice",
    "infer_shapes",
    "load",
    "normalise",
    "proto",
    "save",
    "statistics",
    "text",
    "validate",
]
