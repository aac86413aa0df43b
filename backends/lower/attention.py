"""Attention and RotaryEmbedding of the standard, composed of multiplications and Softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.operator import Operator, Refused

COMPUTED_IN = {"float16": "float32", "float32": "float32", "float64": "float64"}
"""The dtype of scores and sums, by that of the operands."""

NONE = -np.inf
"""What is added to the score of a pair that must not attend."""


@dataclass(frozen=True)
class Heads:
    """Extents of `query [batch, heads, queries, size]`, `key [batch, kv_heads, keys, size]`, value with `value_size`."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    size: int
    value_size: int

    @property
    def group(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class Scores:
    """The stages of the scores `[batch, heads, queries, keys]`, in the order of `qk_matmul_output_mode`."""

    product: ir.Value
    capped: ir.Value
    masked: ir.Value
    weights: ir.Value


class Bias:
    """What is added to the scores: a part known at compile time and parts computed at run time.

    Every part broadcasts to `[batch, heads, queries, keys]`. Parts must be added before the scores are computed, so that
    the kernel of the scores can take them in. `operand_dtype` is that of query, key and value, `dtype` that of the
    scores.
    """

    def __init__(self, build: Composite, operand_dtype: str) -> None:
        if operand_dtype not in COMPUTED_IN:
            raise Refused(f"attention in {operand_dtype} is not supported")
        self.build = build
        self.operand_dtype = np.dtype(operand_dtype)
        self.dtype = np.dtype(COMPUTED_IN[operand_dtype])
        self.known: np.ndarray[Any, Any] | None = None
        self.computed: ir.Value | None = None

    def allow(self, allowed: np.ndarray[Any, Any]) -> None:
        """Only pairs where `allowed` holds may attend."""
        part = np.where(allowed, 0, NONE).astype(self.dtype)
        self.known = part if self.known is None else np.add(self.known, part)

    def allow_where(self, allowed: ir.Value) -> None:
        """Only pairs where `allowed`, computed at run time, holds may attend."""
        zero, none = (np.array(number, self.dtype) for number in (0, NONE))
        self._add(self.build("Where", allowed, zero, none))

    def add(self, part: ir.Value) -> None:
        """Add a part of the operands' dtype, computed at run time."""
        self._add(self.widened(part))

    def widened(self, value: ir.Value) -> ir.Value:
        """A value of the operands' dtype in that of the scores."""
        return value if self.dtype == self.operand_dtype else self.build("Cast", value, to=_kind(self.dtype))

    def narrowed(self, value: ir.Value) -> ir.Value:
        """A value of the scores' dtype in that of the operands."""
        return (
            value
            if self.dtype == self.operand_dtype
            else self.build("Cast", value, to=_kind(self.operand_dtype))
        )

    def _add(self, part: ir.Value) -> None:
        self.computed = part if self.computed is None else self.build("Add", self.computed, part)

    def total(self) -> ir.Value | None:
        """The sum of all parts, or None without any."""
        if self.known is None:
            return self.computed
        known = self.build.constant(self.known)
        return known if self.computed is None else self.build("Add", self.computed, known)

    def may_exclude_a_query(self) -> bool:
        """Whether a query may be left with nothing to attend to."""
        return self.computed is not None or (
            self.known is not None and bool((self.known == NONE).all(-1).any())
        )


def attend(
    build: Composite,
    operands: Sequence[ir.Value],
    heads: Heads,
    bias: Bias,
    scale: float,
    softcap: float = 0.0,
    precision: int | None = None,
) -> tuple[ir.Value, Scores]:
    """The result `[batch, heads, queries, value_size]` of 4-D query, key and value, and the stages of the scores.

    A query that may attend to nothing gives zeros. `precision` is the ONNX element type of the softmax where that is
    wider than the scores.
    """
    query, key, value = (bias.widened(operand) for operand in operands)
    total = bias.total()
    excluded = _excluded(build, total, bias) if total is not None and bias.may_exclude_a_query() else None
    product = _scores(build, query, key, heads, scale, bias.dtype)
    capped = product
    if softcap:
        cap = np.array(softcap, bias.dtype)
        capped = build("Mul", build("Tanh", build("Div", product, cap)), cap)
    masked = capped if total is None else build("Add", capped, total)
    weights = _softmax(build, masked, excluded, bias.dtype, precision)
    result = build("MatMul", _grouped(build, weights, heads, heads.keys), value)
    if heads.group > 1:
        result = build.reshape(result, (heads.batch, heads.heads, heads.queries, heads.value_size))
    stages = (bias.narrowed(stage) for stage in (product, capped, masked, weights))
    return bias.narrowed(result), Scores(*stages)


def _scores(
    build: Composite, query: ir.Value, key: ir.Value, heads: Heads, scale: float, dtype: np.dtype[Any]
) -> ir.Value:
    product = build("MatMul", _grouped(build, query, heads, heads.size), build.transpose(key, 0, 1, 3, 2))
    product = build("Mul", product, np.array(scale, dtype))
    if heads.group > 1:
        product = build.reshape(product, (heads.batch, heads.heads, heads.queries, heads.keys))
    return product


def _grouped(build: Composite, value: ir.Value, heads: Heads, width: int) -> ir.Value:
    """The rows of all query heads that share keys and values one below the other."""
    if heads.group == 1:
        return value
    return build.reshape(value, (heads.batch, heads.kv_heads, heads.group * heads.queries, width))


def _excluded(build: Composite, total: ir.Value, bias: Bias) -> ir.Value:
    best = build("ReduceMax", total, np.array([-1], np.int64), keepdims=1)
    return build("Equal", best, np.array(NONE, bias.dtype))


def _softmax(
    build: Composite, scores: ir.Value, excluded: ir.Value | None, dtype: np.dtype[Any], precision: int | None
) -> ir.Value:
    if excluded is not None:
        scores = build("Max", scores, np.array(np.finfo(dtype).min, dtype))
    wider = precision == ir.DataType.DOUBLE.value and dtype != np.float64
    weights = build("Softmax", build("Cast", scores, to=precision) if wider else scores, axis=-1)
    weights = build("Cast", weights, to=_kind(dtype)) if wider else weights
    return weights if excluded is None else build("Where", excluded, np.array(0, dtype), weights)


def _kind(dtype: np.dtype[Any]) -> int:
    return ir.DataType.from_numpy(dtype).value


def split_heads(build: Composite, value: ir.Value, shape: Sequence[int], heads: int) -> ir.Value:
    """`[batch, steps, heads * size]` as `[batch, heads, steps, size]`."""
    batch, steps, width = shape
    return build.transpose(build.reshape(value, (batch, steps, heads, width // heads)), 0, 2, 1, 3)


def join_heads(build: Composite, value: ir.Value, heads: Heads) -> ir.Value:
    """`[batch, heads, queries, value_size]` as `[batch, queries, heads * value_size]`."""
    shape = (heads.batch, heads.queries, heads.heads * heads.value_size)
    return build.reshape(build.transpose(value, 0, 2, 1, 3), shape)


def causal_window(
    queries: int, keys: int, offset: int, causal: bool, left: int = -1, right: int = -1
) -> np.ndarray[Any, Any]:
    """Which pairs `[query, key]` may attend: key `j` is at distance `j - i - offset` from query `i`."""
    distance = np.arange(keys) - np.arange(queries)[:, None] - offset
    allowed = distance <= 0 if causal else np.ones_like(distance, bool)
    allowed = allowed & (distance >= -left) if left >= 0 else allowed
    return allowed & (distance <= right) if right >= 0 else allowed


def _build_attention(build: Composite) -> Sequence[ir.Value | None]:
    """Attention, opset 23 and later."""
    query, key, value = (build.inputs[i] for i in range(3))
    assert query is not None
    assert key is not None
    assert value is not None
    rank = len(build.shape(query))
    if rank == 3:
        counts = (build.attribute("q_num_heads"), *[build.attribute("kv_num_heads")] * 2)
        shapes = [build.shape(each) for each in (query, key, value)]
        query, key, value = (
            split_heads(build, each, shape, count)
            for each, shape, count in zip((query, key, value), shapes, counts, strict=True)
        )
        shapes = [(s[0], n, s[1], s[2] // n) for s, n in zip(shapes, counts, strict=True)]
    else:
        shapes = [build.shape(each) for each in (query, key, value)]
    past_key, past_value = build.input(4), build.input(5)
    past = 0 if past_key is None else build.shape(past_key)[2]
    if past_key is not None:
        key, value = build("Concat", past_key, key, axis=2), build("Concat", past_value, value, axis=2)
    batch, count, queries, size = shapes[0]
    heads = Heads(batch, count, shapes[1][1], queries, past + shapes[1][2], size, shapes[2][3])
    bias = _bias(build, heads, past)
    scale = build.attribute("scale") or 1 / math.sqrt(heads.size)
    softcap, precision = build.attribute("softcap", 0.0), build.attribute("softmax_precision")
    result, scores = attend(build, (query, key, value), heads, bias, scale, softcap, precision)
    stages = (scores.product, scores.capped, scores.masked, scores.weights)
    result = join_heads(build, result, heads) if rank == 3 else result
    return wanted(build, [result, key, value, stages[build.attribute("qk_matmul_output_mode", 0)]])


def wanted(build: Composite, values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """The values of outputs that are read; None for the others, which are then not computed."""
    return [
        value if output.uses() or output.is_graph_output() else None
        for value, output in zip(values, build.node.outputs, strict=False)
    ]


def _bias(build: Composite, heads: Heads, past: int) -> Bias:
    query = build.inputs[0]
    assert query is not None
    bias = Bias(build, build.dtype(query))
    mask, lengths = build.input(3), build.input(6)
    causal = bool(build.attribute("is_causal", 0))
    window = (build.attribute("left_window_size", -1), build.attribute("right_window_size", -1))
    if mask is not None:
        _add_mask(build, bias, mask, heads)
    if lengths is not None:
        _allow_lengths(build, bias, lengths, heads, causal, window)
    elif causal or max(window) >= 0:
        bias.allow(causal_window(heads.queries, heads.keys, past, causal, *window))
    return bias


def _add_mask(build: Composite, bias: Bias, mask: ir.Value, heads: Heads) -> None:
    """A mask that covers fewer keys than there are excludes the rest."""
    covered, is_bool = build.shape(mask)[-1], build.dtype(mask) == "bool"
    if covered not in (1, heads.keys):
        pads = np.zeros(2 * len(build.shape(mask)), np.int64)
        pads[-1] = heads.keys - covered
        mask = build("Pad", mask, pads, np.array(False) if is_bool else np.array(NONE, bias.operand_dtype))
    if is_bool:
        bias.allow_where(mask)
    else:
        bias.add(mask)


def _allow_lengths(
    build: Composite, bias: Bias, lengths: ir.Value, heads: Heads, causal: bool, window: tuple[int, int]
) -> None:
    """`lengths [batch]` tells how many keys of each sample are there; causality counts from the last of them."""
    lengths = build.reshape(lengths, (heads.batch, 1, 1, 1))
    keys = np.arange(heads.keys, dtype=np.int64)
    bias.allow_where(build("Less", keys, lengths))
    start = build("Add", lengths, np.arange(heads.queries, dtype=np.int64)[:, None] - heads.queries)
    left, right = window
    if causal:
        bias.allow_where(build("LessOrEqual", keys, start))
    if left >= 0:
        bias.allow_where(build("GreaterOrEqual", keys, build("Sub", start, np.array(left, np.int64))))
    if right >= 0:
        bias.allow_where(build("LessOrEqual", keys, build("Add", start, np.array(right, np.int64))))


def rotate(
    build: Composite, x: ir.Value, size: int, cos: ir.Value, sin: ir.Value, rotated: int, interleaved: bool
) -> ir.Value:
    """The first `rotated` elements of the last axis (of `size`) turned by angles whose `cos` and `sin` broadcast."""
    half = rotated // 2
    turned, rest = (x, None) if rotated == size else build.split(x, 3, (rotated, size - rotated))
    if interleaved:
        first, second = (_every_second(build, turned, start) for start in (0, 1))
    else:
        first, second = build.split(turned, 3, (half, half))
    real = build("Sub", build("Mul", cos, first), build("Mul", sin, second))
    imaginary = build("Add", build("Mul", sin, first), build("Mul", cos, second))
    if interleaved:
        pairs = build("Concat", build.unsqueeze(real, -1), build.unsqueeze(imaginary, -1), axis=-1)
        turned = build("Reshape", pairs, np.array([0, 0, 0, rotated], np.int64))
        parts = [turned]
    else:
        parts = [real, imaginary]
    parts = parts if rest is None else [*parts, rest]
    return parts[0] if len(parts) == 1 else build("Concat", *parts, axis=3)


def _every_second(build: Composite, value: ir.Value, start: int) -> ir.Value:
    end = np.iinfo(np.int64).max
    return build("Slice", value, *(np.array([number], np.int64) for number in (start, end, 3, 2)))


def _build_rotary_embedding(build: Composite) -> Sequence[ir.Value | None]:
    """RotaryEmbedding, opset 23."""
    x, cos, sin = (build.inputs[i] for i in range(3))
    assert x is not None
    assert cos is not None
    assert sin is not None
    shape = build.shape(x)
    if len(shape) == 3:
        heads = build.attribute("num_heads")
        if not heads:
            raise Refused("num_heads is needed for an input of rank 3")
        size = shape[2] // heads
        by_head = build.reshape(x, (*shape[:2], heads, size))
    else:
        size, by_head = shape[3], x
    positions = build.input(3)
    if positions is not None:
        cos, sin = (build("Gather", table, positions, axis=0) for table in (cos, sin))
    axis = 2 if len(shape) == 3 else 1
    cos, sin = (build.unsqueeze(table, axis) for table in (cos, sin))
    rotated = build.attribute("rotary_embedding_dim", 0) or size
    result = rotate(build, by_head, size, cos, sin, rotated, bool(build.attribute("interleaved", 0)))
    return [build.reshape(result, shape) if len(shape) == 3 else result]


OPERATORS: dict[str, Operator] = {
    "Attention": composite(_build_attention),
    "RotaryEmbedding": composite(_build_rotary_embedding),
}
