"""LSTM, GRU and RNN, step by step, in either direction, over sequences of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, require

State = tuple[Tensor, ...]
"""What a cell hands on, [batch, hidden] each; the first is what it gives."""

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "elu": functional.elu,
    "hardsigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "leakyrelu": functional.leaky_relu,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Weights:
    """Those of one direction: for the input [gates * hidden, input], for the state [gates * hidden, hidden], both biases,
    and peepholes [3 * hidden] of an LSTM."""

    input: Tensor
    state: Tensor
    input_bias: Tensor
    state_bias: Tensor
    peepholes: Tensor | None = None


Cell = Callable[[Tensor, State, Weights], State]
"""The state after a step, from the input times its weights [batch, gates * hidden] and the state before."""

MakeCell = Callable[[Node, Sequence[Activation]], Cell]


def _lstm_cell(node: Node, activations: Sequence[Activation]) -> Cell:
    gate, candidate, squash = activations
    bound, coupled = _bounded(node), bool(node.get("input_forget", 0))

    def step(projected: Tensor, state: State, weights: Weights) -> State:
        h, c = state
        sums = projected + functional.linear(h, weights.state, weights.state_bias)
        i, o, f, g = sums.chunk(4, -1)
        peephole_i, peephole_o, peephole_f = _peepholes(weights, h)
        entered = gate(bound(i + peephole_i * c))
        kept = 1 - entered if coupled else gate(bound(f + peephole_f * c))
        after = kept * c + entered * candidate(bound(g))
        return gate(bound(o + peephole_o * after)) * squash(after), after

    return step


def _peepholes(weights: Weights, like: Tensor) -> Sequence[Tensor]:
    if weights.peepholes is None:
        return [like.new_zeros(())] * 3
    return list(weights.peepholes.chunk(3))


def _gru_cell(node: Node, activations: Sequence[Activation]) -> Cell:
    gate, candidate = activations
    bound, reset_last = _bounded(node), bool(node.get("linear_before_reset", 0))

    def step(projected: Tensor, state: State, weights: Weights) -> State:
        (h,) = state
        hidden = h.shape[-1]
        gates, new = 2 * hidden, projected[:, 2 * hidden :]
        sums = functional.linear(h, weights.state[:gates], weights.state_bias[:gates])
        z, r = gate(bound(projected[:, :gates] + sums)).chunk(2, -1)
        recurrent, bias = weights.state[gates:], weights.state_bias[gates:]
        if reset_last:
            moved = r * functional.linear(h, recurrent, bias)
        else:
            moved = functional.linear(r * h, recurrent, bias)
        return ((1 - z) * candidate(bound(new + moved)) + z * h,)

    return step


def _rnn_cell(node: Node, activations: Sequence[Activation]) -> Cell:
    (squash,), bound = activations, _bounded(node)

    def step(projected: Tensor, state: State, weights: Weights) -> State:
        return (squash(bound(projected + functional.linear(state[0], weights.state, weights.state_bias))),)

    return step


def _bounded(node: Node) -> Activation:
    limit = node.get("clip")
    return (lambda x: x) if limit is None else (lambda x: x.clamp(-limit, limit))


def _recurrent(make: MakeCell, defaults: Sequence[str], states: int) -> Maker:
    """An operator whose cell has so many states."""

    def maker(node: Node) -> Compute:
        require("activation_alpha" not in node.attributes, "its activations have parameters")
        require("activation_beta" not in node.attributes, "its activations have parameters")
        require(node.get("layout", 0) == 0, "its layout has the batch first")
        direction = node.get("direction", "forward")
        backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        cells = _cells(node, make, defaults, len(backwards))

        def compute(
            x: Tensor,
            w: Tensor,
            r: Tensor,
            b: Tensor | None = None,
            lengths: Tensor | None = None,
            *initial: Tensor | None,
        ) -> Sequence[Tensor]:
            start = _initial_state(x, r, initial, states)
            peepholes = initial[states] if len(initial) > states else None
            runs = []
            for d, (cell, backward) in enumerate(zip(cells, backwards, strict=True)):
                weights = _weights(w[d], r[d], None if b is None else b[d], peepholes, d)
                state = tuple(each[d] for each in start)
                runs.append(_run(cell, x, weights, state, lengths, backward))
            ends = zip(*(end for _, end in runs), strict=True)
            return [torch.stack([ys for ys, _ in runs], 1), *(torch.stack(each) for each in ends)]

        return compute

    return maker


def _cells(node: Node, make: MakeCell, defaults: Sequence[str], directions: int) -> list[Cell]:
    names = [name.lower() for name in node.get("activations", list(defaults) * directions)]
    for name in names:
        require(name in ACTIVATIONS, f"its activation {name!r} is not supported")
    chosen, each = [ACTIVATIONS[name] for name in names], len(defaults)
    return [make(node, chosen[d * each : (d + 1) * each]) for d in range(directions)]


def _initial_state(x: Tensor, r: Tensor, given: Sequence[Tensor | None], states: int) -> list[Tensor]:
    zeros = x.new_zeros(r.shape[0], x.shape[1], r.shape[2])
    present = [*given[:states], *[None] * (states - len(given[:states]))]
    return [zeros if each is None else each for each in present]


def _weights(w: Tensor, r: Tensor, b: Tensor | None, peepholes: Tensor | None, direction: int) -> Weights:
    biases = w.new_zeros(2 * w.shape[0]) if b is None else b
    first, second = biases.chunk(2)
    return Weights(w, r, first, second, None if peepholes is None else peepholes[direction])


def _run(
    cell: Cell, x: Tensor, weights: Weights, state: State, lengths: Tensor | None, backward: bool
) -> tuple[Tensor, State]:
    """All results of one direction [time, batch, hidden], zero behind the end of a sequence, and the last state."""
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    ends = torch.full_like(x[0, :, 0], x.shape[0], dtype=torch.int64) if lengths is None else lengths.long()
    inside = (steps < ends)[..., None]
    order = torch.where(steps < ends, ends - 1 - steps, steps)[..., None] if backward else None
    projected = functional.linear(_ordered(x, order), weights.input, weights.input_bias)
    results = []
    for t in range(x.shape[0]):
        after = cell(projected[t], state, weights)
        state = tuple(torch.where(inside[t], new, old) for new, old in zip(after, state, strict=True))
        results.append(torch.where(inside[t], state[0], 0))
    return _ordered(torch.stack(results), order), state


def _ordered(x: Tensor, order: Tensor | None) -> Tensor:
    return x if order is None else x.gather(0, order.expand(x.shape))


OPERATORS: dict[str, Maker] = {
    "GRU": _recurrent(_gru_cell, ("sigmoid", "tanh"), 1),
    "LSTM": _recurrent(_lstm_cell, ("sigmoid", "tanh", "tanh"), 2),
    "RNN": _recurrent(_rnn_cell, ("tanh",), 1),
}
