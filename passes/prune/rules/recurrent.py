"""LSTM, GRU and RNN: a cell goes with its gates, in all directions, and with what the state feeds back."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.passes.prune.flow import Flow, label, rank
from graphopt.passes.prune.labels import Block, along
from graphopt.passes.prune.rules.rule import Removal, Rule, parameter

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

INPUT, RECURRENT, BIAS, LENGTHS, STATES, PEEPHOLES = 1, 2, 3, 4, (5, 6), 7


def recurrent(flow: Flow, node: ir.Node) -> None:
    """Weights [directions, gates * hidden, inputs]; outputs end in the axis of cells."""
    source, hidden = node.inputs[0], int(attribute(node, "hidden_size"))
    assert source is not None
    flow.freeze(source, f"{label(node)} runs along it", [0, 1])
    weights = _input(node, INPUT), _input(node, RECURRENT)
    reason = f"{label(node)} reads what stays"
    flow.meet(flow.axis(source, 2), flow.axis(weights[0], 2), reason)
    cells = flow.axis(weights[1], 2)
    for index in (INPUT, RECURRENT, BIAS, PEEPHOLES):
        value = _input(node, index)
        gates = flow.axis(value, 1)
        if value is not None:
            flow.freeze(value, f"{label(node)} has these directions", [0])
            flow.meet(
                None if gates is None else gates.reshape(-1, hidden),
                cells,
                f"{label(node)} has no constant weights",
            )
    for index in STATES:
        state = _input(node, index)
        if state is not None:
            flow.freeze(state, f"{label(node)} runs along it", [0, 1])
            flow.meet(flow.axis(state, 2), cells, f"{label(node)} starts from a state of that size")
    for output in node.outputs:
        width = rank(output)
        if cells is not None and width is not None:
            flow.put(output, [along(cells, width - 1, width)])
    _link(flow, node, source, cells)


def _link(flow: Flow, node: ir.Node, source: ir.Value, cells: Block | None) -> None:
    weights, feedback = parameter(_input(node, INPUT)), parameter(_input(node, RECURRENT))
    output = next((each for each in node.outputs if each.name and rank(each) is not None), None)
    if weights is None or feedback is None or output is None or cells is None:
        return
    last = (rank(output) or 1) - 1
    flow.reads(weights, 2, source, 2)
    flow.reads(feedback, 2, output, last)
    flow.makes(weights, 1, output, last)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _repair_hidden(removal: Removal, node: ir.Node) -> None:
    feedback = _input(node, RECURRENT)
    size = None if feedback is None else removal.size(feedback, 2)
    if size is not None:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", size)


RULES: dict[tuple[str, str], Rule] = {("", name): Rule(recurrent, _repair_hidden) for name in GATES}
