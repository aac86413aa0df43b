"""What convolutions of bytes need besides packed weights: images of few channels in quads, and sums that zero points make."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.byte_arithmetic import ByteArithmetic
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.gemm import segments
from graphopt.backends.kernels.quads import QUAD
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.kernels.units import filled_up
from graphopt.backends.kernels.window import split_index
from graphopt.backends.tensor import Storage, Tensor

PARALLEL_ELEMENTS = 16384
"""Elements below which moving them stays on one thread."""


def emit_quads(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Store `value` `[n, channels, h, w]` of at most four channels of bytes into `out`, four channels together, zeros the rest."""
    batch, channels, height, width = value.shape
    with k.loop(batch * height, loop_kind(value.size, PARALLEL_ELEMENTS), "row") as unit:
        n, y = (k.bind(i) for i in split_index(unit, [batch, height]))

        def pixels(x: Expr, count: int) -> None:
            words = k.local(count, "int32")
            with k.loop(count, "vector" if count > 1 else "serial", "lane") as lane:
                word: Expr = const(0, "int32")
                for channel in range(channels):
                    byte = cast(value.read(k, [n, channel, y, x + lane]), "int32") & const(255, "int32")
                    word = word + byte * const(1 << 8 * channel, "int32")
                k.assign(words, lane, word)
            packed = tirx.op.reinterpret(f"{value.dtype}x{QUAD * count}", k.read_vector(words, 0, count))
            k.store_vector(out.buffer, out.layout.position([n, 0, y, x]), packed, QUAD * count)

        for part in segments(width, lanes):
            size = lanes if part.extent == lanes else 1
            with k.loop(part.repeat * part.extent // size, "serial", "pixels") as number:
                pixels(k.bind(part.start + number * size), size)


def filter_shifts(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the weights of each filter, of which none is further than 255 from another, must be moved by to be int8: int32."""
    low, high = (of(weights.reshape(len(weights), -1), axis=1, initial=0) for of in (np.min, np.max))
    return np.asarray(np.where(low < -128, low + 128, np.where(high > 127, high - 127, 0)), np.int32)


def zero_sums(
    weights: np.ndarray[Any, Any],
    shifts: np.ndarray[Any, Any],
    shape: ConvShape,
    zero: int,
    arithmetic: ByteArithmetic,
) -> np.ndarray[Any, Any]:
    """What each tap must take off the sums for the inputs' zero point: int32 `[kh, kw, groups * vectors, lane]`.

    Where activations are moved, so are the zeros that fill up the last quad; these take part in the sums that `shifts` multiply.
    """
    moved, lanes = arithmetic.moved, arithmetic.lanes
    fillers = -shape.channels % QUAD * moved * shifts
    taps = -(zero + moved) * weights.astype(np.int32).sum(axis=1) - fillers[:, None, None]
    filters = filled_up(shape.filters, lanes)
    padded = np.zeros((shape.groups, filters, *shape.window.kernel), np.int32)
    padded[:, : shape.filters] = taps.reshape(shape.groups, -1, *taps.shape[1:])
    return np.ascontiguousarray(padded.reshape(-1, lanes, *shape.window.kernel).transpose(2, 3, 0, 1))
