"""Runs models that graphopt compiled: needs numpy and nothing else.

import graphopt_runtime

with graphopt_runtime.load("model.gopt") as model:
    (scores,) = model(image)
"""

from graphopt_runtime.calls import BoundCall
from graphopt_runtime.device_arrays import GpuArray
from graphopt_runtime.errors import ArtifactError, GraphoptError, InputError
from graphopt_runtime.model import CompiledModel, load
from graphopt_runtime.tensors import NodeArg, Tensor, Variant

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "BoundCall",
    "CompiledModel",
    "GpuArray",
    "GraphoptError",
    "InputError",
    "NodeArg",
    "Tensor",
    "Variant",
    "load",
]
