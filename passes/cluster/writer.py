"""Coded weights in a graph: Gather(codebook, Cast(codes)), which any runtime computes once; int8 has few levels instead."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.passes.cluster.coded import Coded
from graphopt.passes.quantize.writer import Writer

NARROW = 16
"""Values that a code of four bits tells apart."""

NARROW_OPSET = 21
"""From which on integers may have four bits."""

WIDE_OPSET = 11
"""From which on there is GatherElements."""


def write_codes(model: ir.Model, value: ir.Value, coded: Coded) -> None:
    """Put codes in the place of a constant. Of opset `NARROW_OPSET` on where 16 values or fewer are told apart, else `WIDE_OPSET`."""
    writer, name = Writer(model), value.name or "weights"
    narrow = coded.values.shape[1] <= NARROW
    parts = _Parts(writer, name, narrow)
    made = parts.gathered(coded) if len(coded.values) == 1 else parts.gathered_by_group(coded)
    last = made[-1].outputs[0]
    last.type, last.shape = value.type, value.shape
    edit.insert_behind(model.graph, value, made)
    value.replace_all_uses_with(last)
    edit.drop_initializer(value)


def write_levels(value: ir.Value, coded: Coded) -> None:
    """Put the whole numbers that codes stand for in the place of an int8 constant."""
    value.const_value = ir.Tensor(coded.weights.astype(np.int8), name=value.name)


class _Parts:
    """The nodes and constants of one coded tensor."""

    def __init__(self, writer: Writer, name: str, narrow: bool) -> None:
        self._writer, self._name = writer, name
        self._dtype = np.dtype(ml_dtypes.uint4 if narrow else np.uint8)

    def gathered(self, coded: Coded) -> list[ir.Node]:
        """Codes of one codebook."""
        cast = self._indices(coded.codes)
        codebook = self._constant(coded.values[0], "codebook")
        return [cast, self._node("Gather", [codebook, cast.outputs[0]], "clustered", axis=0)]

    def gathered_by_group(self, coded: Coded) -> list[ir.Node]:
        """Codes of several: a row for each, then reshaped and turned."""
        channels = np.moveaxis(coded.codes, coded.axis, 0)
        cast = self._indices(np.ascontiguousarray(channels).reshape(len(coded.values), -1))
        codebook = self._constant(coded.values, "codebook")
        made = [cast, self._node("GatherElements", [codebook, cast.outputs[0]], "by_group", axis=1)]
        shape = self._constant(np.array(channels.shape, np.int64), "shape")
        made.append(self._node("Reshape", [made[-1].outputs[0], shape], "reshaped"))
        if coded.axis:
            order = np.argsort([coded.axis, *(i for i in range(channels.ndim) if i != coded.axis)])
            made.append(self._node("Transpose", [made[-1].outputs[0]], "clustered", perm=order.tolist()))
        return made

    def _indices(self, codes: np.ndarray) -> ir.Node:
        stored = self._constant(codes.astype(self._dtype), "codes")
        return self._node("Cast", [stored], "indices", to=int(ir.DataType.INT32))

    def _constant(self, array: np.ndarray, what: str) -> ir.Value:
        return self._writer.constant(array, f"{self._name}_{what}")

    def _node(self, op_type: str, inputs: list[ir.Value], what: str, **attributes: object) -> ir.Node:
        return self._writer.node(op_type, inputs, f"{self._name}_{what}", **attributes)  # type: ignore[arg-type]
