"""Quantised models, judged operator by operator: every integer kernel gets the reference's own inputs.

End to end, one rounding tie early in a quantised network moves everything after it, so a comparison of the
outputs says little. Here the model is cut at every quantised value: what was computed there becomes an
output, what is read there an input that holds the reference's value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.comparison import Comparison, compare_output, compare_steps
from graphopt.accuracy.locate import Compiler
from graphopt.accuracy.verify import ReferenceFailed, Verdict, reference, worst
from graphopt.arrays import Array, Feeds

GIVEN = "{}__given"

QUANTISING = ("DynamicQuantizeLinear", "QGemm", "QuantizeLinear")
"""Operators that round to integers, besides those whose names begin with QLinear."""


def verify_islands(model: ir.Model, build: Compiler, feeds: Iterable[Feeds]) -> Verdict:
    """Compare every quantised value with ONNX Runtime's, from ONNX Runtime's own quantised inputs.

    Integers may differ by one step, floats by the tolerance of their dtype. The verdict names each value that
    was compared. ``build`` compiles the cut model once.
    """
    names = quantised_values(model)
    try:
        run = reference(exposed(model, names))
        cases = [(feed, run(feed)) for feed in feeds]
    except ReferenceFailed as error:
        return Verdict(not_verified=str(error))
    if not cases:
        return Verdict(not_verified="there are no inputs to compare with")
    compiled = build(isolate(model, {name: cases[0][1][name] for name in names}))
    return worst(
        [_compare(expected, compiled(_given(feed, expected, names)), names) for feed, expected in cases]
    )


def quantised_values(model: ir.Model) -> list[str]:
    """Names of the values that quantising nodes of the main graph compute from anything but constants."""
    return [
        output.name
        for node in model.graph
        if (node.op_type in QUANTISING or node.op_type.startswith("QLinear"))
        and not _constant(node.inputs[0])
        for output in node.outputs
        if output.name and (output.uses() or output.is_graph_output())
    ]


def isolate(model: ir.Model, values: Mapping[str, Array]) -> ir.Model:
    """A copy in which each named value is an output of the type of its array, and its readers read an input of that type."""
    copy = exposed(model, tuple(values))
    produced = {value.name: value for node in copy.graph for value in node.outputs}
    for name, array in values.items():
        given = ir.Value(
            name=GIVEN.format(name),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
        )
        produced[name].type, produced[name].shape = given.type, given.shape
        copy.graph.inputs.append(given)
        for node, index in list(produced[name].uses()):
            node.replace_input_with(index, given)
    return copy


def exposed(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy with the named values as further outputs."""
    copy = model.clone()
    present = {value.name for value in copy.graph.outputs}
    wanted = set(names) - present
    copy.graph.outputs.extend(value for node in copy.graph for value in node.outputs if value.name in wanted)
    return copy


def _constant(value: ir.Value | None) -> bool:
    return value is None or ir.convenience.get_const_tensor(value) is not None


def _given(feeds: Feeds, values: Mapping[str, Any], names: list[str]) -> dict[str, Array]:
    return {**feeds, **{GIVEN.format(name): values[name] for name in names}}


def _compare(expected: Mapping[str, Any], actual: Mapping[str, Any], names: list[str]) -> Verdict:
    quantised = set(names)

    def one(name: str, value: Any) -> Comparison:
        if name in quantised and np.asarray(value).dtype.kind in "iu":
            return compare_steps(name, value, actual.get(name))
        return compare_output(name, value, actual.get(name))

    return Verdict(tuple(one(name, value) for name, value in expected.items()))
