"""The cells of recurrent networks: what LSTM, GRU and RNN compute from the sums of their gates.

Gates are numbered as in ONNX: i, o, f, c for LSTM; z, r, h for GRU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, broadcast, const, dtype_of
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.kernels.recurrent import Activation, At, Cell, Gates, Phase, RecurrentShape, State
from graphopt.backends.tensor import Tensor

LSTM_GATES, GRU_GATES, RNN_GATES = 4, 3, 1


@dataclass(frozen=True)
class Parameters:
    """What all cells share.

    `projected` holds `[step, row, direction, gate, unit]`, the input's part of the gates and their biases.
    `activations` are those of one direction in the order of the specification.
    """

    shape: RecurrentShape
    projected: Buffer
    weights: Sequence[Buffer]
    activations: Sequence[Activation]
    clip: float | None
    hidden: State
    following: State
    initial: Tensor | None
    final: Tensor | None

    def project(self, k: KernelBuilder, at: At, gate: int) -> Expr:
        """The vector of a gate that the input gives."""
        shape = self.shape
        row = (at.step * shape.batch + at.row) * shape.directions + at.direction
        offset = (row * shape.gates + gate) * shape.padded + at.unit
        return k.load_vector(self.projected, offset, shape.lanes)

    def activate(self, k: KernelBuilder, number: int, value: Expr) -> Expr:
        """Activation `number` of the clipped value."""
        if self.clip is not None:
            low, high = const(-self.clip, dtype_of(value)), const(self.clip, dtype_of(value))
            value = tirx.op.max(tirx.op.min(value, high), low)
        return self.activations[number](k, k.bind(value))


def _load(k: KernelBuilder, state: State, at: At) -> Expr:
    return k.bind(k.load(state.buffer, state.position(at)))


def _set(k: KernelBuilder, state: State, at: At, value: Expr) -> None:
    k.store(state.buffer, state.position(at), value)


@dataclass(frozen=True)
class RnnCell(Cell):
    """H = f(sum)."""

    parameters: Parameters

    @property
    def following(self) -> State:
        return self.parameters.following

    def phases(self) -> Sequence[Phase]:
        p = self.parameters

        def finish(k: KernelBuilder, at: At, gates: Gates) -> None:
            _set(k, p.following, at, p.activate(k, 0, gates[0]))

        return [Phase(1, p.hidden, p.weights[0], lambda k, at: [p.project(k, at, 0)], [finish])]

    def states(self) -> Sequence[tuple[State, Tensor | None, State, Tensor | None]]:
        p = self.parameters
        return [(p.hidden, p.initial, p.following, p.final)]


@dataclass(frozen=True)
class LstmCell(RnnCell):
    """Long short-term memory with optional peepholes `[direction, (i, o, f), padded unit]` and coupled input and forget gates."""

    memory: State
    next_memory: State
    initial_memory: Tensor | None
    final_memory: Tensor | None
    peepholes: Tensor | None
    coupled: bool

    def phases(self) -> Sequence[Phase]:
        p = self.parameters

        def initial(k: KernelBuilder, at: At) -> list[Expr]:
            return [p.project(k, at, gate) for gate in range(LSTM_GATES)]

        stages = (self._input_gate, self._forget_gate, self._memory, self._output_gate, self._hidden)
        return [Phase(LSTM_GATES, p.hidden, p.weights[0], initial, stages)]

    def states(self) -> Sequence[tuple[State, Tensor | None, State, Tensor | None]]:
        return [*super().states(), (self.memory, self.initial_memory, self.next_memory, self.final_memory)]

    def _input_gate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        gates[0] = self.parameters.activate(k, 0, self._peep(k, at, 0, gates[0], self.memory))

    def _forget_gate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        if self.coupled:
            gates[2] = const(1, dtype_of(gates[0])) - gates[0]
        else:
            gates[2] = self.parameters.activate(k, 0, self._peep(k, at, 2, gates[2], self.memory))

    def _memory(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        kept = gates[2] * _load(k, self.memory, at)
        _set(k, self.next_memory, at, kept + gates[0] * self.parameters.activate(k, 1, gates[3]))

    def _output_gate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        gates[1] = self.parameters.activate(k, 0, self._peep(k, at, 1, gates[1], self.next_memory))

    def _hidden(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        p = self.parameters
        _set(k, p.following, at, gates[1] * p.activations[2](k, _load(k, self.next_memory, at)))

    def _peep(self, k: KernelBuilder, at: At, gate: int, total: Expr, memory: State) -> Expr:
        if self.peepholes is None:
            return total
        return total + self.peepholes.read(k, [at.direction, gate, at.unit]) * _load(k, memory, at)


@dataclass(frozen=True)
class GruCell(RnnCell):
    """Gated recurrent unit. `reset` holds r * H between its two multiplications.

    `after_linear` applies the reset gate to the product, to which `recurrent_bias` `[direction, padded unit]` belongs.
    """

    update: State
    reset: State
    after_linear: bool
    recurrent_bias: Tensor | None

    def phases(self) -> Sequence[Phase]:
        p = self.parameters
        if self.after_linear:
            stages = (self._update_gate, self._reset_gate, self._finish_after_linear)
            return [Phase(GRU_GATES, p.hidden, p.weights[0], self._initial_after_linear, stages)]

        def initial(k: KernelBuilder, at: At) -> list[Expr]:
            return [p.project(k, at, gate) for gate in (0, 1)]

        return [
            Phase(
                2, p.hidden, p.weights[0], initial, [self._update_gate, self._reset_gate, self._keep_gates]
            ),
            Phase(1, self.reset, p.weights[1], lambda k, at: [p.project(k, at, 2)], [self._finish_candidate]),
        ]

    def _initial_after_linear(self, k: KernelBuilder, at: At) -> list[Expr]:
        p, lanes = self.parameters, self.parameters.shape.lanes
        bias: Expr = broadcast(const(0, p.projected.dtype), lanes)
        if self.recurrent_bias is not None:
            assert self.recurrent_bias.storage is not None
            storage = self.recurrent_bias.storage
            bias = k.load_vector(storage.buffer, storage.layout.position([at.direction, at.unit]), lanes)
        return [p.project(k, at, 0), p.project(k, at, 1), bias]

    def _update_gate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        gates[0] = self.parameters.activate(k, 0, gates[0])

    def _reset_gate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        gates[1] = self.parameters.activate(k, 0, gates[1])

    def _finish_after_linear(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        p, shape = self.parameters, self.parameters.shape
        row = (at.step * shape.batch + at.row) * shape.directions + at.direction
        projected = k.load(p.projected, (row * shape.gates + 2) * shape.padded + at.unit)
        self._blend(k, at, gates[0], projected + gates[1] * gates[2])

    def _keep_gates(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        _set(k, self.update, at, gates[0])
        _set(k, self.reset, at, gates[1] * _load(k, self.parameters.hidden, at))

    def _finish_candidate(self, k: KernelBuilder, at: At, gates: Gates) -> None:
        self._blend(k, at, _load(k, self.update, at), gates[0])

    def _blend(self, k: KernelBuilder, at: At, update: Expr, total: Expr) -> None:
        p = self.parameters
        candidate = k.bind(p.activate(k, 1, total))
        one = const(1, dtype_of(candidate))
        _set(k, p.following, at, (one - update) * candidate + update * _load(k, p.hidden, at))
