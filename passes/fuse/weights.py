"""How each operator with constant weights takes in a factor and a summand on its output or its input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.rewriting.pattern import Const, Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement

CHEAP = 1 << 16
"""Bytes of a weight that may be copied although others keep using it."""


@dataclass(frozen=True)
class Channels:
    """A factor and a summand for every output channel: y = scale x + shift, in double precision."""

    scale: np.ndarray
    shift: np.ndarray

    @property
    def scales(self) -> bool:
        return bool(np.any(self.scale != 1))

    @property
    def shifts(self) -> bool:
        return bool(np.any(self.shift != 0))


@dataclass(frozen=True)
class Anchor:
    """An operator with weights: the pattern that finds it and what its output channels are.

    ``absorb`` builds the operator anew with ``Channels`` taken in.
    """

    pattern: Op
    channel_axis: int
    channels: Callable[[ir.Node, np.ndarray], int]
    absorb: Callable[[Match, ir.Node, Channels], Replacement]


def _anchor(op_type: str) -> Op:
    return Op(op_type, "x", Const("w", where=_is_float), Const("b", optional=True))


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim >= 2


def new_weight(match: Match, scaled: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | Refuse:
    """The weight after ``scaled``, in its own dtype; refuses a large copy of a shared weight and overflow."""
    weight = match.array("w")
    if len(match["w"].uses()) > 1 and weight.nbytes > CHEAP:
        return Refuse("the weight is used elsewhere and too large to copy")
    return in_dtype(scaled(weight.astype(np.float64)), weight.dtype)


def in_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray | Refuse:
    """``array`` as ``dtype``, unless that overflows."""
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array.astype(dtype))
    return result if np.isfinite(result).all() else Refuse("the result is not finite")


def _rebuilt(
    match: Match,
    node: ir.Node,
    channels: Channels,
    scaled: Callable[[np.ndarray], np.ndarray],
    bias: np.ndarray | None,
    op_type: str = "",
    **changed: Any,
) -> Replacement:
    """The operator with its weight ``scaled`` and ``bias`` (None for none)."""
    weight = new_weight(match, scaled) if channels.scales else match["w"]
    if isinstance(weight, Refuse):
        return weight
    inputs: list[ir.Value | np.ndarray] = [match["x"], weight]
    if bias is not None:
        rounded = in_dtype(bias, match.array("w").dtype)
        if isinstance(rounded, Refuse):
            return rounded
        inputs.append(rounded)
    return match.op(op_type or node.op_type, inputs, attributes_of=node, **changed)


def _bias(match: Match, channels: Channels) -> np.ndarray | None:
    """The bias of a convolution after the affine map; None if there is none."""
    if match.get("b") is not None:
        return np.asarray(match.array("b").astype(np.float64) * channels.scale + channels.shift)
    return channels.shift if channels.shifts else None


def _absorb_in_conv(match: Match, node: ir.Node, channels: Channels) -> Replacement:
    def scaled(weight: np.ndarray) -> np.ndarray:
        return np.asarray(weight * channels.scale.reshape(-1, *(1,) * (weight.ndim - 1)))

    return _rebuilt(match, node, channels, scaled, _bias(match, channels))


def _absorb_in_conv_transpose(match: Match, node: ir.Node, channels: Channels) -> Replacement:
    groups = attribute(node, "group")

    def scaled(weight: np.ndarray) -> np.ndarray:
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        factor = channels.scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        return np.asarray(by_group * factor).reshape(weight.shape)

    return _rebuilt(match, node, channels, scaled, _bias(match, channels))


def _absorb_in_gemm(match: Match, node: ir.Node, channels: Channels) -> Replacement:
    bias = channels.shift if channels.shifts else None
    if match.get("b") is not None:
        given = match.array("b")
        if given.ndim == 2 and given.shape[0] != 1:
            return Refuse("the bias varies along the rows")
        bias = (
            given.astype(np.float64).reshape(-1) * attribute(node, "beta") * channels.scale + channels.shift
        )

    def scaled(weight: np.ndarray) -> np.ndarray:
        return np.asarray(weight * (channels.scale[:, None] if attribute(node, "transB") else channels.scale))

    return _rebuilt(match, node, channels, scaled, bias, beta=None)


def _absorb_in_matmul(match: Match, node: ir.Node, channels: Channels) -> Replacement:
    """A summand needs Gemm, which exists for matrices only."""
    source = match["x"].shape
    if channels.shifts and (source is None or len(source) != 2):
        return None
    if channels.shifts and match.opset < 7:
        return Refuse("Gemm broadcasts its bias from opset 7 on")
    bias = channels.shift if channels.shifts else None
    op_type = "MatMul" if bias is None else "Gemm"
    return _rebuilt(match, node, channels, lambda weight: weight * channels.scale, bias, op_type)


def _is_matrix(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim == 2


ANCHORS = [
    Anchor(_anchor("Conv"), 1, lambda node, weight: weight.shape[0], _absorb_in_conv),
    Anchor(
        _anchor("ConvTranspose"),
        1,
        lambda node, weight: weight.shape[1] * int(attribute(node, "group")),
        _absorb_in_conv_transpose,
    ),
    Anchor(
        _anchor("Gemm"),
        1,
        lambda node, weight: weight.shape[0 if attribute(node, "transB") else 1],
        _absorb_in_gemm,
    ),
    Anchor(
        Op("MatMul", "x", Const("w", where=_is_matrix)),
        -1,
        lambda node, weight: weight.shape[1],
        _absorb_in_matmul,
    ),
]
