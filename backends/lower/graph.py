"""Lowers a whole model, node by node in graph order, into a program of kernels."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphopt.backends.codegen.program import Buffer, Program, Role
from graphopt.backends.kernels.core import Core
from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.machine import Machine
from graphopt.backends.lower.nodes import lower_nodes
from graphopt.backends.lower.operator import Refused, dtype_of_value, refuse_bfloat16, shape_of
from graphopt.backends.lower.placement import find_homes
from graphopt.backends.lower.table import OPERATORS
from graphopt.backends.schedules.choice import Rules, Schedules
from graphopt.backends.tensor import stored
from graphopt.errors import UnsupportedError, UnsupportedNode

CPU = Machine(OPERATORS)


def lower_model(
    model: ir.Model, core: Core, schedules: Schedules | None = None, machine: Machine = CPU
) -> Program:
    """The program of a model whose shapes are all fixed; schedules are chosen by rules unless somebody else is given.

    Raises UnsupportedError with every node that cannot be lowered and the reason, before any code is generated.
    """
    ctx = Lowering(core, dict(model.opset_imports), machine, schedules=schedules or Rules())
    try:
        refuse_bfloat16((*model.graph.inputs, *model.graph.outputs))
        inputs = [_bind_input(ctx, value) for value in model.graph.inputs if not value.is_initializer()]
    except Refused as reason:
        raise UnsupportedError([UnsupportedNode("", "input", "", str(reason))]) from None
    ctx.outputs = dict.fromkeys(model.graph.outputs)
    ctx.homes = find_homes(model.graph, core.lanes)
    refused: list[UnsupportedNode] = []
    lower_nodes(ctx, model.graph, refused)
    if refused:
        raise UnsupportedError(refused)
    outputs = [_bind_output(ctx, value) for value in model.graph.outputs]
    return Program(inputs, outputs, ctx.steps)


def _bind_input(ctx: Lowering, value: ir.Value) -> Buffer:
    shape, dtype = shape_of(value), dtype_of_value(value)
    tensor = stored(Buffer(value.name or "", math.prod(shape), dtype, Role.INPUT), shape)
    ctx.values[value] = tensor
    assert tensor.storage is not None
    return tensor.storage.buffer


def _bind_output(ctx: Lowering, value: ir.Value) -> Buffer:
    """The caller's buffer of an output; values that live elsewhere are copied into it."""
    buffer = ctx.outputs[value]
    if buffer is None:
        tensor = ctx.tensor(value)
        buffer = Buffer(value.name or "", tensor.size, tensor.dtype, Role.OUTPUT)
        ctx.outputs[value] = buffer
        ctx.layer = f"output {value.name}"
        ctx.copy(tensor, stored(buffer, tensor.shape))
    return buffer
