"""PyTorch in eager mode, on a model converted by onnx2torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt.arrays import Feeds
from graphopt.backends.peers.base import missing
from graphopt.timing.worker import Runner


@dataclass(frozen=True)
class TorchBackend:
    """Runs those ONNX models that onnx2torch can convert; it says which operator it lacks for the others."""

    def available(self) -> str | None:
        return missing(("torch", "torchvision", "onnx2torch"), "pip install 'graphopt[torch]'")

    def load(self, model_path: Path, threads: int) -> Runner:
        import onnx2torch
        import torch

        torch.set_num_threads(threads)
        model = onnx.load(model_path)
        return _Runner(onnx2torch.convert(model).eval(), model.graph)


class _Runner:
    def __init__(self, module: Any, graph: onnx.GraphProto) -> None:
        self._module = module
        defaults = {tensor.name for tensor in graph.initializer}
        self._inputs = [value.name for value in graph.input if value.name not in defaults]
        self._outputs = [value.name for value in graph.output]

    @property
    def precision(self) -> str:
        parameter = next(self._module.parameters(), None)
        return "float32" if parameter is None else str(parameter.dtype).removeprefix("torch.")

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        import torch

        with torch.inference_mode():
            results = self._module(*(torch.from_numpy(np.ascontiguousarray(feeds[n])) for n in self._inputs))
        tensors = results if isinstance(results, (list, tuple)) else [results]
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}
