"""Writes the operators of the domain ``graphopt`` in terms of the model's own opset, so that any runtime can read them.

Each has the meaning of the standard operator of its name at the newest opset, with the inputs and attributes that
``Fuse`` gives it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.fuse.emit import DOMAIN, SINCE
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.pipeline import Context, Outcome
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule, apply_rules

ROUND_TF32 = "RoundToTF32"
"""The nearest float32 with 11 significant bits: an operator that no opset has."""

TF32_SPLITTER = float(1 + (1 << 13))
"""A product with it, of which the product less the number is taken, leaves the bits of a float32 but for the last 13."""


@dataclass(frozen=True)
class Expand:
    """Leaves no operator of the domain ``graphopt``: the standard operator where the opset has it, else primitives."""

    name: ClassVar[str] = "expand"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Expands every such node, and forgets the domain once nothing uses it any more."""
        outcome = apply_rules(model, RULES)
        nodes = edit.nodes(model.graph)
        if outcome.modified and not any(node.domain == DOMAIN for node in nodes):
            model.opset_imports.pop(DOMAIN, None)
        return outcome


class Builder:
    """Builds primitives for one match, with numbers as constants of the dtype of the first input."""

    def __init__(self, match: Match) -> None:
        self.match = match
        self.inputs = list(match.root.inputs)
        dtype = self.inputs[0].dtype if self.inputs and self.inputs[0] is not None else None
        assert dtype is not None
        self.dtype = dtype

    def __call__(self, op_type: str, *operands: Any, **attributes: Any) -> ir.Value:
        """A node of the standard domain; Python floats become constants."""
        values = [self.number(each) if isinstance(each, float) else each for each in operands]
        return self.match.op(op_type, values, **attributes)

    def number(self, value: float) -> np.ndarray:
        return np.array(value, self.dtype.numpy())

    def attribute(self, name: str, default: Any) -> Any:
        found = attribute(self.match.root, name)
        return default if found is None else found

    def input(self, index: int) -> ir.Value | None:
        return self.inputs[index] if len(self.inputs) > index else None

    def mean(self, value: ir.Value, axes: list[int]) -> ir.Value:
        """The axes are an input from opset 18 on."""
        if self.match.opset >= 18:
            return self("ReduceMean", value, np.array(axes, np.int64), keepdims=1)
        return self("ReduceMean", value, axes=axes, keepdims=1)

    def unsqueeze(self, value: ir.Value, axis: int) -> ir.Value:
        """The axes are an input from opset 13 on."""
        if self.match.opset >= 13:
            return self("Unsqueeze", value, np.array([axis], np.int64))
        return self("Unsqueeze", value, axes=[axis])


def _gelu(build: Builder) -> Replacement:
    x = build.input(0)
    if build.attribute("approximate", "none") == "tanh":
        cubed = build("Mul", build("Mul", x, x), x)
        inner = build("Mul", build("Add", x, build("Mul", cubed, 0.044715)), math.sqrt(2 / math.pi))
        gate = build("Tanh", inner)
    else:
        gate = build("Erf", build("Mul", x, math.sqrt(0.5)))
    return build("Mul", build("Mul", x, 0.5), build("Add", gate, 1.0))


def _swish(build: Builder) -> Replacement:
    x, alpha = build.input(0), build.attribute("alpha", 1.0)
    return build("Mul", x, build("Sigmoid", x if alpha == 1.0 else build("Mul", x, alpha)))


def _hard_swish(build: Builder) -> Replacement:
    x = build.input(0)
    return build("Mul", x, build("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _mish(build: Builder) -> Replacement:
    x = build.input(0)
    return build("Mul", x, build("Tanh", build("Softplus", x)))


def _layer_normalisation(build: Builder) -> Replacement:
    def centred(x: ir.Value, axes: list[int]) -> ir.Value:
        return build("Sub", x, build.mean(x, axes))

    return _normalised(build, centred)


def _rms_normalisation(build: Builder) -> Replacement:
    return _normalised(build, lambda x, axes: x)


def _normalised(build: Builder, centred: Callable[[ir.Value, list[int]], ir.Value]) -> Replacement:
    """Half precision is normalised in single precision, which is what ``stash_type`` 1 says."""
    x, scale, bias = build.input(0), build.input(1), build.input(2)
    assert x is not None
    if x.shape is None:
        return Refuse("the rank is unknown")
    axes = list(range(build.attribute("axis", -1) % len(x.shape), len(x.shape)))
    wide = x if build.dtype == ir.DataType.FLOAT else build("Cast", x, to=ir.DataType.FLOAT.value)
    deviation = centred(wide, axes)
    variance = build.mean(build("Mul", deviation, deviation), axes)
    epsilon = np.array(build.attribute("epsilon", 1e-5), np.float32)
    result = build("Div", deviation, build("Sqrt", build("Add", variance, epsilon)))
    if wide is not x:
        result = build("Cast", result, to=build.dtype.value)
    result = build("Mul", result, scale)
    return result if bias is None else build("Add", result, bias)


def _attention(build: Builder) -> Replacement:
    query, key, value, mask = (build.input(index) for index in range(4))
    if query is None or key is None or value is None or query.shape is None or key.shape is None:
        return Refuse("the shapes are unknown")
    size, heads = query.shape[3], query.shape[1]
    scale = build.attribute("scale", None)
    if scale is None:
        if not isinstance(size, int):
            return Refuse("the default scale needs the size of a head")
        scale = 1 / math.sqrt(size)
    keys, values = (_repeated(build, each, heads) for each in (key, value))
    if keys is None or values is None:
        return Refuse("the number of heads is unknown")
    scores = build("MatMul", query, build("Transpose", keys, perm=(0, 1, 3, 2)))
    scores = build("Mul", scores, float(scale))
    if mask is not None:
        scores = build("Add", scores, mask)
    return build("MatMul", build("Softmax", scores, axis=3), values)


def _repeated(build: Builder, value: ir.Value, heads: int | ir.SymbolicDim) -> ir.Value | None:
    """Every head of keys or values as often as there are query heads for it."""
    if value.shape is None:
        return None
    own, size = value.shape[1], value.shape[3]
    if own == heads:
        return value
    if not (isinstance(own, int) and isinstance(heads, int) and isinstance(size, int)) or heads % own:
        return None
    repeats = np.array([1, 1, heads // own, 1, 1], np.int64)
    wide = build("Expand", build.unsqueeze(value, 2), repeats)
    return build("Reshape", wide, np.array([0, heads, -1, size], np.int64))


def _round_tf32(build: Builder) -> Replacement:
    """The upper part of Dekker's split (Numerische Mathematik 18, 1971): a float32 of 11 significant bits."""
    x = build.input(0)
    kept = build("Mul", x, TF32_SPLITTER)
    return build("Sub", kept, build("Sub", kept, x))


EXPANSIONS: dict[str, Callable[[Builder], Replacement]] = {
    "Attention": _attention,
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_normalisation,
    "Mish": _mish,
    "RMSNormalization": _rms_normalisation,
    ROUND_TF32: _round_tf32,
    "Swish": _swish,
}


def _expand(match: Match) -> Replacement:
    node = match.root
    if match.opset >= SINCE.get(node.op_type, math.inf):
        return match.op(node.op_type, list(node.inputs), attributes_of=node)
    return EXPANSIONS[node.op_type](Builder(match))


RULES = [Rule(f"expand {op_type}", Op(op_type, ..., domain=DOMAIN), _expand) for op_type in EXPANSIONS]
