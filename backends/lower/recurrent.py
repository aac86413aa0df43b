"""LSTM, GRU and RNN: the input's part of all gates as one multiplication, then one kernel for the recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.cells import (
    GRU_GATES,
    LSTM_GATES,
    RNN_GATES,
    GruCell,
    LstmCell,
    Parameters,
    RnnCell,
)
from graphopt.backends.kernels.recurrent import (
    Activation,
    Cell,
    RecurrentKernel,
    RecurrentShape,
    State,
    choose_lanes,
    gate_columns,
)
from graphopt.backends.lower.composite import Composite
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, attribute
from graphopt.backends.lower.recurrent_activations import activations
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.tensor import Index, Tensor, lazy

REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Whether each direction walks backwards."""


@dataclass(frozen=True)
class Network:
    """One node with its operands, all laid out steps first: X `[step, row, feature]`, states `[direction, row, unit]`."""

    ctx: Lowering
    node: ir.Node
    gates: int
    x: Tensor
    weights: Tensor
    recurrent: Tensor
    bias: Tensor | None
    lengths: Tensor | None

    @property
    def rows_first(self) -> bool:
        """Whether the node's own operands are laid out batch first."""
        return bool(attribute(self.node, "layout", 0))

    @property
    def shape(self) -> RecurrentShape:
        directions, _, hidden = self.recurrent.shape
        steps, batch = self.x.shape[:2]
        lanes = max(self.ctx.lanes * 4 // np.dtype(self.x.dtype).itemsize, 1)
        return RecurrentShape(steps, batch, directions, hidden, self.gates, choose_lanes(hidden, lanes))

    def state(self) -> State:
        """Scratch memory for one state."""
        shape = self.shape
        size = shape.directions * shape.batch * shape.padded
        return State(self.ctx.buffer(size, self.x.dtype), shape.batch, shape.padded)

    def initial(self, position: int) -> Tensor | None:
        """An initial state, indexed by direction, row and unit."""
        tensor = _input(self.ctx, self.node, position)
        if tensor is None:
            return None
        tensor = tensor if tensor.constant is not None else self.ctx.in_memory(tensor)
        return transpose(tensor, (1, 0, 2)) if self.rows_first else tensor

    def final(self, position: int) -> Tensor | None:
        """Where an output of last states goes, indexed by direction, row and unit; None if nobody reads it."""
        shape = self.shape
        extents = (shape.directions, shape.batch, shape.hidden)
        return self._output(position, extents, (1, 0, 2))

    def output(self) -> Tensor | None:
        """Where the hidden states of all steps go, indexed by step, direction, row and unit."""
        shape = self.shape
        extents = (shape.steps, shape.directions, shape.batch, shape.hidden)
        return self._output(0, extents, (2, 0, 1, 3))

    def _output(self, position: int, extents: tuple[int, ...], rows_first: tuple[int, ...]) -> Tensor | None:
        value = self.node.outputs[position] if position < len(self.node.outputs) else None
        if value is None or not (value.uses() or value.is_graph_output()):
            return None
        if not self.rows_first:
            return self.ctx.result(value, extents, self.x.dtype)
        made = self.ctx.result(value, [extents[axis] for axis in rows_first], self.x.dtype)
        return transpose(made, [rows_first.index(axis) for axis in range(len(extents))])

    def rearranged(self, tensor: Tensor, positions: np.ndarray[Any, Any]) -> Tensor:
        """The elements of `tensor` at flat `positions`, in their shape and in memory; beyond its end lie zeros."""
        if tensor.constant is not None:
            return self.ctx.constant(np.append(tensor.constant, tensor.constant.dtype.type(0))[positions])
        flat = reshape(self.ctx.dense(tensor), (tensor.size,))
        table = self.ctx.constant(positions.astype(np.int32))

        def read(k: KernelBuilder, index: Index) -> Expr:
            at = k.bind(table.read(k, index))
            value = flat.read(k, [tirx.op.min(at, const(tensor.size - 1, "int32"))])
            return tirx.Select(at < tensor.size, value, const(0, tensor.dtype))

        return self.ctx.store(lazy(positions.shape, tensor.dtype, read))

    def memory(self, tensor: Tensor) -> Buffer:
        """The buffer of a dense tensor."""
        return storage_of(self.ctx.dense(tensor)).buffer


def _network(ctx: Lowering, node: ir.Node, gates: int) -> Network:
    x, weights, recurrent, bias, lengths = (_input(ctx, node, i) for i in range(5))
    assert x is not None
    assert weights is not None
    assert recurrent is not None
    if not x.dtype.startswith("float"):
        raise Refused(f"{node.op_type} of {x.dtype}")
    if attribute(node, "layout", 0):
        x = transpose(x, (1, 0, 2))
    if lengths is not None and lengths.constant is not None and (lengths.constant >= x.shape[0]).all():
        lengths = None
    lengths = lengths if lengths is None else ctx.strided(lengths)
    return Network(ctx, node, gates, x, weights, recurrent, bias, lengths)


def _input(ctx: Lowering, node: ir.Node, position: int) -> Tensor | None:
    value = node.inputs[position] if position < len(node.inputs) else None
    return None if value is None else ctx.tensor(value)


def _project(network: Network, apart: Sequence[int] = ()) -> Buffer:
    """`[step, row, direction, gate, unit]`: the input times its weights plus both biases.

    The recurrent biases of the gates `apart` are left out.
    """
    shape, gates = network.shape, range(network.gates)
    features = network.x.shape[2]
    columns = gate_columns(shape, gates)
    height = network.gates * shape.hidden
    rows = (np.arange(shape.directions)[:, None, None] * height + columns).reshape(-1)
    weights = network.rearranged(network.weights, rows[None, :] * features + np.arange(features)[:, None])
    build = Composite(network.ctx, network.node)
    x = build.reshape(build.bind(network.x), (shape.steps * shape.batch, features))
    result = build("MatMul", x, build.bind(weights))
    if network.bias is not None:
        result = build("Add", result, build.bind(_gate_bias(network, columns, apart)))
    (projected,) = build.lower([result])
    assert projected is not None
    return network.memory(projected)


def _gate_bias(network: Network, columns: np.ndarray[Any, Any], apart: Sequence[int]) -> Tensor:
    """The biases of the input plus the recurrent ones, `[direction * gate * unit]`."""
    bias, shape, height = network.bias, network.shape, network.gates * network.shape.hidden
    assert bias is not None
    start = np.arange(shape.directions)[:, None, None] * 2 * height
    of_input = start + columns
    recurrent = of_input + height
    recurrent[:, list(apart)] = bias.size
    parts = [network.rearranged(bias, part.reshape(-1)) for part in (of_input, recurrent)]
    if all(part.constant is not None for part in parts):
        return network.ctx.constant(parts[0].constant + parts[1].constant)  # type: ignore[operator]
    return lazy(
        parts[0].shape, bias.dtype, lambda k, index: parts[0].read(k, index) + parts[1].read(k, index), 1
    )


def _recurrent_weights(network: Network, gates: Sequence[int]) -> Buffer:
    """`[direction, block, source unit, gate, lane]` of some gates."""
    shape = network.shape
    columns = gate_columns(shape, gates).reshape(len(gates), shape.blocks, 1, shape.lanes)
    rows = np.arange(shape.directions)[:, None, None, None, None] * network.gates * shape.hidden
    rows = rows + columns.transpose(1, 2, 0, 3)
    positions = rows * shape.hidden + np.arange(shape.hidden)[:, None, None]
    return network.memory(network.rearranged(network.recurrent, positions))


MakeCell = Callable[[Parameters], Cell]


def _emit(network: Network, weights: Sequence[Buffer], projected: Buffer, count: int, make: MakeCell) -> None:
    """The kernel of the recurrence, or one a direction if their activations differ."""
    node, shape, ctx = network.node, network.shape, network.ctx
    reverse = REVERSED[attribute(node, "direction", "forward")]
    if len(reverse) != shape.directions:
        raise Refused(
            f"{shape.directions} sets of weights for direction={attribute(node, 'direction', 'forward')}"
        )
    functions = activations(node, count * len(reverse))
    names = [key for key, _ in functions]
    apart = len(reverse) == 2 and names[:count] != names[count:]
    groups = [(0, reverse[:1]), (1, reverse[1:])] if apart else [(0, reverse)]
    output, final = network.output(), network.final(1)
    hidden, following = network.state(), network.state()
    for first, directions in groups:
        chosen: list[Activation] = [
            function for _, function in functions[first * count : (first + 1) * count]
        ]
        parameters = Parameters(
            shape,
            projected,
            weights,
            chosen,
            attribute(node, "clip"),
            hidden,
            following,
            network.initial(5),
            final,
        )
        kernel = RecurrentKernel(
            shape, directions, first, make(parameters), network.lengths, output, network.x.dtype
        )
        with ctx.kernel(node.op_type.lower()) as k:
            kernel.emit(k)


def lower_rnn(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """RNN, opset 7 and 14."""
    network = _network(ctx, node, RNN_GATES)
    _emit(network, [_recurrent_weights(network, [0])], _project(network), 1, RnnCell)
    return []


def lower_lstm(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """LSTM, opset 7 and 14."""
    network = _network(ctx, node, LSTM_GATES)
    shape = network.shape
    memory = network.state()
    following = memory if network.lengths is None else network.state()
    initial, final = network.initial(6), network.final(2)
    peepholes = _input(ctx, node, 7)
    if peepholes is not None:
        rows = np.arange(shape.directions)[:, None, None] * 3 * shape.hidden
        peepholes = network.rearranged(peepholes, rows + gate_columns(shape, range(3)))
    coupled = bool(attribute(node, "input_forget", 0))

    def make(parameters: Parameters) -> Cell:
        return LstmCell(parameters, memory, following, initial, final, peepholes, coupled)

    _emit(network, [_recurrent_weights(network, range(LSTM_GATES))], _project(network), 3, make)
    return []


def lower_gru(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
    """GRU, opset 7 and 14."""
    network = _network(ctx, node, GRU_GATES)
    after_linear = bool(attribute(node, "linear_before_reset", 0))
    phases = [range(GRU_GATES)] if after_linear else [range(2), range(2, GRU_GATES)]
    weights = [_recurrent_weights(network, gates) for gates in phases]
    projected = _project(network, apart=[2] if after_linear else [])
    bias = _candidate_bias(network) if after_linear and network.bias is not None else None
    update, reset = network.state(), network.state()

    def make(parameters: Parameters) -> Cell:
        return GruCell(parameters, update, reset, after_linear, bias)

    _emit(network, weights, projected, 2, make)
    return []


def _candidate_bias(network: Network) -> Tensor:
    """The recurrent bias of the gate h, `[direction, unit]`, in memory."""
    assert network.bias is not None
    shape = network.shape
    start = np.arange(shape.directions)[:, None] * 2 * GRU_GATES * shape.hidden + GRU_GATES * shape.hidden
    return network.ctx.strided(network.rearranged(network.bias, start + gate_columns(shape, [2])))


OPERATORS: dict[str, Operator] = {
    "RNN": Lowered(lower_rnn),
    "LSTM": Lowered(lower_lstm),
    "GRU": Lowered(lower_gru),
}
