"""`onnx.backend.base.Backend` over graphopt, so that the ONNX conformance suite and existing code can drive it.

A model is compiled when it first runs, for the shapes it is then given, and once for every new set of shapes. The data
always runs through compiled kernels; only inputs that fix a shape or an axis (`SHAPE_INPUTS`) are bound to their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.base import Backend as OnnxBackend
from onnx.backend.base import BackendRep

from graphopt import api
from graphopt.errors import InputError
from graphopt.model import edit

if TYPE_CHECKING:
    from graphopt_runtime import CompiledModel

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{name}": (1,) for name in _REDUCTIONS},
}
"""Operator -> positions of inputs that fix the shape or the axes of its result."""

Array = np.ndarray[Any, Any]


class Prepared(BackendRep):
    """A model that compiles itself for the shapes it meets."""

    def __init__(self, model: onnx.ModelProto, target: str) -> None:
        self._model = ir.from_proto(model)
        self._target = target
        self._bound = shape_inputs(self._model)
        self._compiled: dict[Any, CompiledModel] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs for inputs given by position (a sequence, or one array) or by name (a mapping)."""
        feeds = self._feeds(inputs)
        bound = {name: array for name, array in feeds.items() if name in self._bound}
        rest = {name: array for name, array in feeds.items() if name not in self._bound}
        key = (
            *((name, a.shape) for name, a in rest.items()),
            *((name, a.tobytes()) for name, a in bound.items()),
        )
        if key not in self._compiled:
            shapes = {name: array.shape for name, array in rest.items()}
            self._compiled[key] = api.compile(
                self._model, self._target, bind=bound, input_shapes=shapes, check=False
            )
        return tuple(self._compiled[key].run(None, rest))

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            return {name: np.asarray(array) for name, array in inputs.items()}
        arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        names = [value.name or "" for value in self._model.graph.inputs]
        required = [value.name or "" for value in self._model.graph.inputs if not value.is_initializer()]
        chosen = names if len(arrays) == len(names) else required
        if len(arrays) != len(chosen):
            raise InputError(
                f"the model takes {len(required)} inputs ({', '.join(required)}), not {len(arrays)}"
            )
        return {name: np.asarray(array) for name, array in zip(chosen, arrays, strict=True)}


class Backend(OnnxBackend):
    """The interface of `onnx.backend.base.Backend`; `device` is "CPU"."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """`target` may name another target than `native`."""
        return Prepared(model, kwargs.get("target", "native"))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node; `opset_version` may be given."""
        names = [name for name in node.input if name]
        arrays = [np.asarray(array) for array in inputs]
        feeds = [_declare(name, array) for name, array in zip(names, arrays, strict=True)]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", feeds, results)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        return cls.run_model(onnx.shape_inference.infer_shapes(model), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


def shape_inputs(model: ir.Model) -> set[str]:
    """The names of inputs that some node takes as a shape or as axes."""
    return {value.name or "" for value in _shape_values(model) if value.is_graph_input()}


def _shape_values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in edit.graphs(model):
        for node in graph:
            for position in SHAPE_INPUTS.get(node.op_type, ()):
                value = node.inputs[position] if position < len(node.inputs) else None
                if value is not None:
                    yield value


def _declare(name: str, array: Array) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, array.shape)


prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
