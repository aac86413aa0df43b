"""A model that learns within its constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from graphopt.arrays import Array
from graphopt.errors import GraphoptError
from graphopt.training.distillation.constraints import Mask, codebooks, find_levels, has_zeros_to_keep
from graphopt.training.executor import TorchModel, write_back
from graphopt.training.executor.operator import Tensor


class Student(nn.Module):
    """Computes what its ONNX model does, on any device; zeros of weights, shared weights and integers stay what they are.

    Images lie in memory with their channels last, which is how convolutions are fast.
    """

    def __init__(self, model: ir.Model, batch_statistics: bool, device: torch.device) -> None:
        """`model` is in normal form. Raises UnsupportedError, which lists every node that cannot be computed, and GraphoptError where
        there is nothing to learn."""
        super().__init__()
        self.device = device
        self._model = TorchModel(model, batch_statistics=batch_statistics)
        self._levels = nn.ModuleList(find_levels(model))
        if not any(True for _ in self.parameters()):
            raise GraphoptError("the student has no weights that could learn")
        self.to(device)
        for parameter in self._model.parameters():
            parameter.data = _channels_last(parameter.data)
        books = codebooks(model)
        masks = (
            Mask.of(weight)
            for name, weight in self._model.learned().items()
            if has_zeros_to_keep(name, weight, books)
        )
        self._masks = [mask for mask in masks if mask is not None]

    def forward(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Values by name."""
        weights = {each.value: each() for each in self._levels}
        values: dict[str, Tensor] = self._model({**feeds, **weights}, wanted)
        return values

    def constrain(self) -> None:
        """Undoes what a step did to zeros."""
        for mask in self._masks:
            mask.apply()

    def state(self) -> dict[str, Tensor]:
        """All that learning changes, by name."""
        return self._model.learned() | {each.name: each.weight for each in self._levels}

    def statistics(self) -> list[Tensor]:
        """The running statistics of batch normalisations, if they move."""
        return [each for each in self.state().values() if not isinstance(each, nn.Parameter)]

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state."""
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])

    def write(self, model: ir.Model) -> None:
        """Puts what was learned into the model that this was made from, in place; names and types stay."""
        write_back(self._model, model)
        for each in self._levels:
            value = model.graph.initializers[each.name]
            old = value.const_value
            assert old is not None
            levels = each.levels().cpu().contiguous().numpy().astype(old.dtype.numpy())
            value.const_value = ir.Tensor(levels, old.dtype, name=value.name)

    def tensors(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """Arrays where this computes."""
        return {
            name: _channels_last(torch.from_numpy(np.ascontiguousarray(array)).to(self.device))
            for name, array in arrays.items()
        }


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
