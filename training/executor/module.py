"""An ONNX model as a torch module, and the way back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir
import torch
from torch import nn

from graphopt.errors import InputError, ModelError
from graphopt.model import edit, normalise
from graphopt.training.executor.building import build, to_tensor
from graphopt.training.executor.operator import Tensor
from graphopt.training.executor.weights import decode, encode, statistics, weights


class TorchModel(nn.Module):
    """A differentiable module that computes what an ONNX model does.

    Weights are parameters, all other constants are buffers, both under the names of their initializers (see `encode`).
    BatchNormalization uses its running statistics; with `batch_statistics` and after `train()` it uses those of the batch instead, and
    moves the running ones, as torch does. Nothing is ever dropped by Dropout.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        trainable: Collection[str] | None = None,
        batch_statistics: bool = False,
        single: torch.dtype = torch.float32,
    ) -> None:
        """Copies what it needs of `model`, raw or optimised; operators of ONNX's standard domain only.

        `trainable` names the initializers that become parameters, by default all that `weights` finds. `single` is the type
        that is computed with where the model says float32. Raises UnsupportedError, which lists every node that cannot be computed,
        and ModelError for a trainable name that is no float initializer.
        """
        super().__init__()
        source = model.clone()
        normalise(source)
        self.inputs = [value.name or "" for value in source.graph.inputs]
        self.outputs = [value.name or "" for value in source.graph.outputs]
        self.batch_statistics = batch_statistics
        self._program = build(source.graph, single)
        chosen = weights(source) if trainable is None else _existing(trainable, source)
        self._statistics = statistics(source) if batch_statistics else []
        for name, constant in _constants(source).items():
            if name in self._program.needs:
                self._register(name, to_tensor(constant, single), name in chosen)

    def forward(self, feeds: Mapping[str, Tensor], wanted: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The outputs, or the wanted values of the main graph, by name.

        `feeds` has a tensor for each input that is needed; an intermediate value may be given as well, and what only it depends on is
        not computed then. Raises InputError for a name that does not exist or an input that is missing, and GraphoptError, which names
        the node, where a tensor does not fit.
        """
        constants = self.constants()
        names = self.outputs if wanted is None else list(wanted)
        known = self._program.produced.union(self.inputs, constants)
        unknown = [name for name in (*feeds, *names) if name not in known]
        if unknown:
            raise InputError(f"the model has no value called {', '.join(map(repr, unknown))}")
        learning = self.training and self.batch_statistics
        return self._program.run({**constants, **feeds}, names, learning)

    def learned(self) -> dict[str, Tensor]:
        """What training changes, by the names of the initializers: parameters and, if they move, running statistics."""
        parameters = {decode(name): parameter for name, parameter in self.named_parameters()}
        constants = self.constants()
        return parameters | {name: constants[name] for name in self._statistics}

    def constants(self) -> dict[str, Tensor]:
        """Every constant that is read, by the name of its initializer; what is written to it counts from then on."""
        return {decode(name): tensor for name, tensor in (*self.named_parameters(), *self.named_buffers())}

    def _register(self, name: str, tensor: Tensor, is_weight: bool) -> None:
        if is_weight:
            self.register_parameter(encode(name, self), nn.Parameter(tensor))
        else:
            self.register_buffer(encode(name, self), tensor)


def write_back(module: TorchModel, model: ir.Model) -> None:
    """Puts what `module` has learned into the initializers of `model`, in place; names and types stay.

    `model` is the one that the module was made from; if its weights are Constant nodes, it is brought to normal form first. Raises
    ModelError where it lacks an initializer, or has one of another shape.
    """
    learned = module.learned()
    if not learned.keys() <= model.graph.initializers.keys():
        normalise(model)
    for name, tensor in learned.items():
        value = model.graph.initializers.get(name)
        old = None if value is None else value.const_value
        if value is None or old is None or tuple(old.shape.numpy()) != tuple(tensor.shape):
            raise ModelError(f"the model has no initializer {name!r} of shape {list(tensor.shape)}")
        array = tensor.detach().cpu().contiguous().to(torch.float64).numpy().astype(old.dtype.numpy())
        value.const_value = ir.Tensor(array, old.dtype, name=name)


def _existing(names: Collection[str], model: ir.Model) -> Collection[str]:
    """The names, if each is one of a float initializer of the main graph."""
    for name in names:
        found = edit.tensor(model.graph.initializers.get(name))
        if found is None or not found.dtype.is_floating_point():
            raise ModelError(f"{name!r} cannot be trained: the model has no float initializer of that name")
    return names


def _constants(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Every initializer of every graph, and defaults of inputs, by name."""
    return {
        name: value.const_value
        for graph in edit.graphs(model)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
