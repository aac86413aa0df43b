"""Initial states of recurrent operators that are zero, which is what they are when they are left out."""

from collections import Counter

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.rewriting.pipeline import Outcome

STATES = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}
"""Where they are among the inputs."""

CARRIERS = frozenset(
    {"Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that give some of the elements of their first operand, any number of times."""


def drop_zero_states(model: ir.Model) -> Outcome:
    """Leave them out, in place; what computed them dies."""
    dropped = 0
    for node in edit.nodes(model.graph):
        for index in STATES.get(node.op_type, ()) if node.domain == "" else ():
            if len(node.inputs) > index and node.inputs[index] is not None and _is_zero(node.inputs[index]):
                node.replace_input_with(index, None)
                dropped += 1
    return Outcome(dropped > 0, Counter({"zero initial state": dropped} if dropped else {}))


def _is_zero(value: ir.Value | None) -> bool:
    """Whether every element is certainly 0.0."""
    array = edit.constant(value)
    if array is not None:
        return _all_zero(array)
    producer = None if value is None else value.producer()
    if producer is None or producer.domain != "":
        return False
    if producer.op_type == "ConstantOfShape":
        filled = attribute(producer, "value")
        return filled is None or _all_zero(filled.numpy())
    return producer.op_type in CARRIERS and _is_zero(producer.inputs[0])


def _all_zero(array: np.ndarray) -> bool:
    return not array.any() and not np.signbit(array).any()
