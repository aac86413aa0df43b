"""The normal form that passes and backends work on: no functions, no Constant nodes, unique names, known shapes."""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from graphopt.errors import ModelError
from graphopt.model import edit
from graphopt.model.inference import infer_shapes
from graphopt.model.tensors import held

LISTED_AS_INPUTS_BEFORE = 4
"""Before this IR version, initializers had to be listed among the inputs, so that says nothing about them."""

MANY = 16
"""A model that lists this many initializers, and all it has, as inputs keeps an exporter's old habit; it does not offer
every weight as an option."""


def normalise(model: ir.Model) -> list[str]:
    """Brings ``model`` into normal form, in place.

    Functions are inlined, Constant nodes become initializers, every value of the main graph and its subgraphs has a name
    of its own, and shapes are inferred. Initializers that are listed among the inputs by habit become constants (their
    names are returned); those that are options of the model stay inputs until ``freeze_defaults``. Raises ``ModelError``
    if functions call each other in a circle.
    """
    _inline(model)
    frozen = freeze_defaults(model) if _lists_weights_by_habit(model) else []
    model.ir_version = max(model.ir_version or 0, LISTED_AS_INPUTS_BEFORE)
    _lift_constants(model)
    edit.share_opsets(model)
    _name_uniquely(model)
    infer_shapes(model)
    return frozen


def frozen_notice(names: Sequence[str]) -> list[str]:
    """What to tell a user about the names that ``normalise`` returned; empty if there are none."""
    if not names:
        return []
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return [f"{len(names)} initializers that are listed as inputs too became constants: {shown}"]


SHOWN = 3


def freeze_defaults(model: ir.Model) -> list[str]:
    """Makes initializers that callers could override (they are inputs as well) plain constants; gives their names."""
    frozen = [value for value in model.graph.inputs if value.is_initializer()]
    for value in frozen:
        model.graph.inputs.remove(value)
    return [value.name or "" for value in frozen]


def _lists_weights_by_habit(model: ir.Model) -> bool:
    if (model.ir_version or 0) < LISTED_AS_INPUTS_BEFORE:
        return True
    initializers = model.graph.initializers.values()
    return len(initializers) >= MANY and all(value.is_graph_input() for value in initializers)


def _lift_constants(model: ir.Model) -> None:
    """Constant nodes become initializers, all of them held so that reading one does not decode it every time."""
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0).call(model)
    for graph in edit.graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = held(value.const_value)


def _inline(model: ir.Model) -> None:
    if not model.functions:
        return
    try:
        InlinePass()(model)
    except ir.passes.PreconditionError as error:
        raise ModelError(f"the functions of the model call each other in a circle: {error}") from error


def _name_uniquely(model: ir.Model) -> None:
    """Renames values of subgraphs, and unnamed values, that clash; names of the main graph's interface stay."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    fixed = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for graph in edit.graphs(model):
        inner_inputs = graph.inputs if graph is not model.graph else ()
        computed = (output for node in graph for output in node.outputs)
        for value in (*inner_inputs, *list(graph.initializers.values()), *computed):
            if id(value) not in fixed:
                fixed.add(id(value))
                _rename(value, taken)
    _name_nodes(model)


def _rename(value: ir.Value, taken: set[str | None]) -> None:
    base = value.name or "value"
    name, count = base, 0
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    value.name = name


def _name_nodes(model: ir.Model) -> None:
    taken: set[str] = set()
    for node in edit.nodes(model.graph):
        base = node.name or (node.outputs[0].name if node.outputs else "") or node.op_type
        name, count = base, 0
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name
