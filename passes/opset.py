"""Conversion to another version of the standard opset, for passes and tools that need one."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.model.inference import without_weights
from graphopt.model.normal import normalise
from graphopt.rewriting.pipeline import Context, Outcome


@dataclass(frozen=True)
class ConvertOpset:
    """Rewrites the model in terms of opset ``version``; weights are not copied.

    Raises ``ModelError`` if ONNX's converter cannot convert one of the operators.
    """

    name: ClassVar[str] = "convert-opset"
    version: int = 18

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Replaces the graph of ``model`` by its conversion, in normal form again: axes that became inputs are constants."""
        current = model.opset_imports.get("", 0)
        if current == self.version:
            return Outcome()
        converted = self._convert(model, current)
        _restore_weights(model.graph, converted.graph)
        model.graph = converted.graph
        normalise(model)
        return Outcome(True, Counter({f"opset {current} to {self.version}": 1}))

    def _convert(self, model: ir.Model, current: int) -> ir.Model:
        try:
            return ir.from_proto(onnx.version_converter.convert_version(without_weights(model), self.version))
        except (onnx.version_converter.ConvertError, RuntimeError, ValueError) as error:
            raise ModelError(f"cannot convert from opset {current} to {self.version}: {error}") from error


def _restore_weights(source: ir.Graph, target: ir.Graph) -> None:
    """Gives the initializers that travelled as inputs their data back."""
    inputs = {value.name for value in source.inputs}
    for value in list(target.inputs):
        original = source.initializers.get(value.name) if value.name else None
        if original is None or original.const_value is None:
            continue
        if value.name not in inputs:
            target.inputs.remove(value)
        value.const_value = original.const_value
        target.register_initializer(value)
