"""Attention operators of ONNX Runtime's own domain, on top of the scores of the standard one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.attention import (
    Bias,
    Heads,
    attend,
    causal_window,
    join_heads,
    rotate,
    split_heads,
    wanted,
)
from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.contrib import Values
from graphopt.backends.lower.operator import Operator, Refused, constant_input


def _multi_head_attention(build: Composite) -> Values:
    """MultiHeadAttention: query `[batch, steps, width]`; key and value likewise, or split into heads already."""
    query, key, value = (build.input(i) for i in range(3))
    if query is None or key is None or value is None or len(build.shape(query)) != 3:
        raise Refused("packed query, key and value are not supported")
    count = build.attribute("num_heads")
    batch, queries, width = build.shape(query)
    separate = len(build.shape(key)) == 3
    keys = build.shape(key)[1 if separate else 2]
    value_width = build.shape(value)[2] if separate else build.shape(value)[1] * build.shape(value)[3]
    widths = [width, width, value_width]
    operands: list[ir.Value] = [query, key, value]
    if build.input(3) is not None:
        biases = build.split(build.required(3), 0, widths)
        operands = [
            build("Add", x, b) if i == 0 or separate else x
            for i, (x, b) in enumerate(zip(operands, biases, strict=True))
        ]
    steps = (queries, keys, keys)
    split = [
        split_heads(build, x, (batch, n, w), count) if i == 0 or separate else x
        for i, (x, n, w) in enumerate(zip(operands, steps, widths, strict=True))
    ]
    past = 0
    if build.input(6) is not None:
        past = build.shape(build.required(6))[2]
        split[1] = build("Concat", build.required(6), split[1], axis=2)
        split[2] = build("Concat", build.required(7), split[2], axis=2)
    heads = Heads(batch, count, count, queries, past + keys, width // count, value_width // count)
    bias = Bias(build, build.dtype(query))
    _add_key_mask(build, bias, build.input(4), heads)
    if build.input(5) is not None:
        bias.add(build.required(5))
    if build.attribute("unidirectional", 0):
        bias.allow(causal_window(queries, heads.keys, past, causal=True))
    result, scores = attend(build, split, heads, bias, _scale(build, heads))
    return wanted(build, [join_heads(build, result, heads), split[1], split[2], scores.product])


def _attention(build: Composite) -> Values:
    """Attention of com.microsoft: one multiplication projects the input to query, key and value."""
    x, weights = build.required(0), build.required(1)
    batch, steps, _ = build.shape(x)
    if build.attribute("do_rotary", 0) or build.attribute("past_present_share_buffer", 0):
        raise Refused("do_rotary and past_present_share_buffer are not supported")
    count = build.attribute("num_heads")
    total = build.shape(weights)[1]
    widths = build.attribute("qkv_hidden_sizes") or [total // 3] * 3
    projected = build("MatMul", x, weights)
    if build.input(2) is not None:
        projected = build("Add", projected, build.required(2))
    parts = build.split(projected, 2, widths)
    query, key, value = (
        split_heads(build, p, (batch, steps, w), count) for p, w in zip(parts, widths, strict=True)
    )
    past = 0
    if build.input(4) is not None:
        past = build.shape(build.required(4))[3]
        old_key, old_value = build.split(build.required(4), 0, (1, 1))
        key, value = (
            build("Concat", build("Squeeze", old, np.array([0])), new, axis=2)
            for old, new in ((old_key, key), (old_value, value))
        )
    heads = Heads(batch, count, count, steps, past + steps, widths[0] // count, widths[2] // count)
    bias = Bias(build, build.dtype(x))
    _add_key_mask(build, bias, build.input(3), heads)
    if build.input(5) is not None:
        bias.add(build.required(5))
    if build.attribute("unidirectional", 0):
        bias.allow(causal_window(steps, heads.keys, past, causal=True))
    result, _ = attend(build, (query, key, value), heads, bias, _scale(build, heads))
    present = build("Concat", *(build.unsqueeze(part, 0) for part in (key, value)), axis=0)
    return wanted(build, [join_heads(build, result, heads), present])


def _scale(build: Composite, heads: Heads) -> float:
    return float(build.attribute("scale") or 1 / math.sqrt(heads.size))


def _add_key_mask(build: Composite, bias: Bias, mask: ir.Value | None, heads: Heads) -> None:
    """An integer mask: `[batch]` counts keys, `[batch, keys]` and `[batch, queries, keys]` are 0 where a key is not
    attended to. Scores of such keys are lowered by `mask_filter_value`, not excluded.
    """
    if mask is None:
        return
    shape = build.shape(mask)
    if shape == (heads.batch,):
        keys = np.arange(heads.keys, dtype=np.int32)
        present = build("Less", keys, build.reshape(mask, (heads.batch, 1, 1, 1)))
    elif shape in ((heads.batch, heads.keys), (heads.batch, heads.queries, heads.keys)):
        full = (heads.batch, 1, *([1] if len(shape) == 2 else [heads.queries]), heads.keys)
        present = build("GreaterOrEqual", build.reshape(mask, full), np.array(1, build.dtype(mask)))
    else:
        raise Refused(f"a mask of shape {list(shape)} is not supported")
    dtype = bias.operand_dtype
    filtered = np.array(build.attribute("mask_filter_value", -10000.0), dtype)
    bias.add(build("Where", present, np.array(0, dtype), filtered))


def _rotary_embedding(build: Composite) -> Values:
    """RotaryEmbedding: positions are `[batch, steps]`, or the first one of all samples."""
    x, positions, cos, sin = (build.required(i) for i in range(4))
    shape = build.shape(x)
    rotated = build.attribute("rotary_embedding_dim", 0)
    by_steps = len(shape) == 3
    if by_steps:
        count = build.attribute("num_heads", 0) or shape[2] // (rotated or 2 * build.shape(cos)[1])
        size, steps = shape[2] // count, shape[1]
        x = build.reshape(x, (*shape[:2], count, size))
    else:
        size, steps = shape[3], shape[2]
    if build.shape(positions) == (1,):
        positions = build("Add", positions, np.arange(steps, dtype=np.int64)[None])
    cos, sin = (
        build.unsqueeze(build("Gather", t, positions, axis=0), 2 if by_steps else 1) for t in (cos, sin)
    )
    result = rotate(build, x, size, cos, sin, rotated or size, bool(build.attribute("interleaved", 0)))
    scale = build.attribute("scale", 1.0)
    result = result if scale == 1 else build("Mul", result, np.array(scale, build.dtype(build.required(0))))
    return [build.reshape(result, shape) if by_steps else result]


def _group_query_attention(build: Composite) -> Values:
    """GroupQueryAttention whose cache is exactly as long as what has been seen: past plus new steps."""
    x = build.required(0)
    counts = (build.attribute("num_heads"), *[build.attribute("kv_num_heads")] * 2)
    batch, steps, width = build.shape(x)
    past = 0 if build.input(3) is None else build.shape(build.required(3))[2]
    _check_lengths(build, past + steps)
    if build.attribute("local_window_size", -1) >= 0 or build.input(11) is not None:
        raise Refused("a local window, or a head sink, is not supported")
    if build.input(1) is None:
        size = width // sum(counts)
        operands = build.split(x, 2, [count * size for count in counts])
    else:
        size = width // counts[0]
        operands = [x, build.required(1), build.required(2)]
    query, key, value = (
        split_heads(build, operand, (batch, steps, count * size), count)
        for operand, count in zip(operands, counts, strict=True)
    )
    if build.attribute("do_rotary", 0):
        query, key = _rotated(build, (query, key), size, past, steps)
    if past:
        key, value = (
            build("Concat", build.required(3), key, axis=2),
            build("Concat", build.required(4), value, axis=2),
        )
    heads = Heads(batch, counts[0], counts[1], steps, past + steps, size, size)
    bias = Bias(build, build.dtype(x))
    if build.input(10) is not None:
        bias.add(build.required(10))
    bias.allow(causal_window(steps, heads.keys, past, causal=True))
    result, _ = attend(
        build, (query, key, value), heads, bias, _scale(build, heads), build.attribute("softcap", 0.0)
    )
    return wanted(build, [join_heads(build, result, heads), key, value])


def _check_lengths(build: Composite, total: int) -> None:
    lengths = constant_input(build.ctx, build.node, 5, "seqlens_k")
    if lengths is None or (np.asarray(lengths) != total - 1).any():
        raise Refused(f"samples shorter than the {total} steps of past and input are not supported")


def _rotated(
    build: Composite, operands: Sequence[ir.Value], size: int, past: int, steps: int
) -> list[ir.Value]:
    if build.input(9) is not None:
        raise Refused("position_ids are not supported")
    tables = [build.slice(build.required(i), 0, past, past + steps) for i in (7, 8)]
    rotated = 2 * build.shape(build.required(7))[1]
    interleaved = bool(build.attribute("rotary_interleaved", 0))
    return [rotate(build, x, size, tables[0], tables[1], rotated, interleaved) for x in operands]


OPERATORS: dict[str, Operator] = {
    "Attention": composite(_attention),
    "GroupQueryAttention": composite(_group_query_attention),
    "MultiHeadAttention": composite(_multi_head_attention),
    "RotaryEmbedding": composite(_rotary_embedding),
}
"""Domain com.microsoft."""
