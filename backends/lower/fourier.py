"""DFT by the factorisation of Cooley and Tukey (1965): products with small constant matrices, and twiddle factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.backends.lower.composite import Composite, composite
from graphopt.backends.lower.operator import Operator, Refused, constant_input, shape_of

Roots = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

LARGEST_MATRIX = 1 << 26
"""Bytes of one product's matrix beyond which a transform is refused; only large prime factors get there."""


@dataclass(frozen=True)
class _Complex:
    """Real and imaginary parts, [rows, length]; None stands for zeros."""

    real: ir.Value
    imaginary: ir.Value | None


def _dft(build: Composite) -> Sequence[ir.Value | None]:
    """Along one axis; a shorter or longer transform crops the input or pads it with zeros."""
    onesided, inverse = build.attribute("onesided", 0), build.attribute("inverse", 0)
    if onesided and inverse:
        raise Refused("an inverse transform of a one-sided spectrum is not supported")
    x = build.required(0)
    shape = build.shape(x)
    axis, length = _axis(build, len(shape)), _length(build)
    length = shape[axis] if length is None else length
    order = [*(a for a in range(len(shape) - 1) if a != axis), axis, len(shape) - 1]
    moved = build.transpose(_fitted(build, x, axis, length), *order)
    others = [shape[a] for a in order[:-2]]
    parts = build.split(moved, -1, [1] * shape[-1])
    rows = [build.reshape(part, (math.prod(others), length)) for part in parts]
    found = _transform(build, _Complex(rows[0], rows[1] if len(rows) > 1 else None), length, bool(inverse))
    bins = length // 2 + 1 if onesided else length
    _check_bins(build, bins, axis)
    results = [_bins(build, part, (*others, length), bins, inverse) for part in _parts(build, found)]
    joined = build("Concat", *(build.unsqueeze(each, -1) for each in results), axis=-1)
    return [build.transpose(joined, *np.argsort(order).tolist())]


def _axis(build: Composite, rank: int) -> int:
    """An attribute (default 1) before opset 20, an input (default -2) since."""
    if build.ctx.opset(build.node) < 20:
        return int(build.attribute("axis", 1)) % rank
    axis = constant_input(build.ctx, build.node, 2, "axis")
    return (-2 if axis is None else int(np.reshape(axis, ()))) % rank


def _length(build: Composite) -> int | None:
    wanted = constant_input(build.ctx, build.node, 1, "length")
    return None if wanted is None else int(np.reshape(wanted, ()))


def _check_bins(build: Composite, bins: int, axis: int) -> None:
    stated = shape_of(build.node.outputs[0])[axis]
    if stated != bins:
        raise Refused(f"its output is declared with {stated} bins instead of {bins}")


def _fitted(build: Composite, x: ir.Value, axis: int, length: int) -> ir.Value:
    """Cropped or padded with zeros to the length of the transform."""
    shape = list(build.shape(x))
    if shape[axis] >= length:
        return x if shape[axis] == length else build.slice(x, axis, 0, length)
    after = [length - extent if a == axis else 0 for a, extent in enumerate(shape)]
    return build("Pad", x, np.array([*[0] * len(shape), *after], np.int64))


def _parts(build: Composite, z: _Complex) -> list[ir.Value]:
    assert z.imaginary is not None
    return [z.real, z.imaginary]


def _bins(build: Composite, part: ir.Value, shape: Sequence[int], bins: int, inverse: int) -> ir.Value:
    """One part in the shape of the input, cropped to the bins that are wanted, scaled if inverse."""
    length = shape[-1]
    full = build.reshape(part, shape)
    kept = full if bins == length else build.slice(full, -1, 0, bins)
    return build("Mul", kept, np.array(1 / length, build.dtype(build.required(0)))) if inverse else kept


def _transform(build: Composite, z: _Complex, length: int, inverse: bool) -> _Complex:
    """With n = rest * n1 + n2 and k = k1 + radix * k2: over n1, twiddled, then over n2."""
    radix = _radix(length, inverse)
    if radix == 1:
        return _times(build, "MatMul", z, _roots(build, length, length, length, inverse))
    rest = length // radix
    columns = _swapped(build, z, radix, rest)
    inner = _times(build, "MatMul", columns, _roots(build, radix, radix, radix, inverse))
    matrices = _reshaped(build, inner, rest, radix)
    twiddled = _times(build, "Mul", matrices, _roots(build, length, rest, radix, inverse))
    outer = _transform(build, _swapped(build, twiddled, rest, radix), rest, inverse)
    return _reshaped(build, _swapped(build, outer, radix, rest), length)


def _radix(length: int, inverse: bool) -> int:
    """The divisor next to the square root: below it for the inverse, whose stages mirror the others; 1 for primes."""
    smaller = next(d for d in range(math.isqrt(length), 0, -1) if length % d == 0)
    return smaller if inverse or smaller == 1 else length // smaller


def _roots(build: Composite, length: int, rows: int, columns: int, inverse: bool) -> Roots:
    """Cosine and sine of the angle row * column * 2 pi / length, which is negative unless inverse."""
    dtype = np.dtype(build.dtype(build.required(0)))
    if rows * columns * dtype.itemsize > LARGEST_MATRIX:
        raise Refused(f"a transform of length {length} needs a matrix larger than {LARGEST_MATRIX >> 20} MiB")
    turns = np.outer(np.arange(rows), np.arange(columns)) % length / length
    angle = 2 * np.pi * turns * (1 if inverse else -1)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def _times(build: Composite, op: str, z: _Complex, roots: Roots) -> _Complex:
    """A product with complex constants."""
    cosine, sine = roots
    real, imaginary = build(op, z.real, cosine), build(op, z.real, sine)
    if z.imaginary is None:
        return _Complex(real, imaginary)
    return _Complex(
        build("Sub", real, build(op, z.imaginary, sine)),
        build("Add", imaginary, build(op, z.imaginary, cosine)),
    )


def _swapped(build: Composite, z: _Complex, rows: int, columns: int) -> _Complex:
    """Every row read as a matrix, transposed: its columns become rows."""

    def swap(part: ir.Value) -> ir.Value:
        matrices = build.reshape(part, (-1, rows, columns))
        return build.reshape(build.transpose(matrices, 0, 2, 1), (-1, rows))

    return _each(z, swap)


def _reshaped(build: Composite, z: _Complex, *shape: int) -> _Complex:
    return _each(z, lambda part: build.reshape(part, (-1, *shape)))


def _each(z: _Complex, function: Callable[[ir.Value], ir.Value]) -> _Complex:
    return _Complex(function(z.real), None if z.imaginary is None else function(z.imaginary))


OPERATORS: dict[str, Operator] = {"DFT": composite(_dft)}
