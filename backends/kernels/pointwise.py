"""Stores a lazy tensor into memory: one loop nest whose inner axis is contiguous wherever the operands allow.

Trailing axes are collapsed into one as long as every operand is then read with stride 1 or 0, so that plain elementwise
chains become a single flat loop and broadcasts keep the longest possible inner loop. Where no axis is, single vectors of the
last one may be: channels that come from blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import ir, sym, tirx

from graphopt.backends.codegen.builder import INDEX, Expr, KernelBuilder, const
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.layout import Blocked
from graphopt.backends.tensor import Storage, Tensor, unravel

PARALLEL_WORK = 32768
"""Elements, weighted by their cost, below which a kernel stays on one thread: about the price of waking the pool."""

CHUNK = 8192
"""Elements of a flat loop that one task handles at least."""

UNIT, STRIDED, SCATTERED = 0, 1, 2


@dataclass(frozen=True)
class _Nest:
    """Loops over `outer` axes around a flat loop of `inner` elements; `quality` is that of the worst operand access."""

    outer: tuple[int, ...]
    trailing: tuple[int, ...]
    quality: int
    guarded: bool
    width: int = 0
    """Extent of the last axis, into whose parts of that size the last axis of the layout was split; 0 where it was not."""

    @property
    def inner(self) -> int:
        return math.prod(self.trailing)


def store_pointwise(k: KernelBuilder, value: Tensor, out: Storage, lanes: int) -> None:
    """Compute every element of `value` into `out`, whose layout is dense or blocked for `value.shape`."""
    if value.size == 0:
        return
    nest = _choose_nest(value, out, lanes)
    if nest.inner == 0 or math.prod(nest.outer) == 0:
        return
    vectorise = not nest.guarded and nest.quality == UNIT and nest.inner >= lanes
    width = lanes if vectorise else 1
    kind = loop_kind(value.size * (1 + value.cost / 4), PARALLEL_WORK)

    def element(outer: Sequence[Expr], flat: Expr) -> None:
        _store_element(k, value, out, nest, outer, flat)

    def run(outer: Sequence[Expr], first: Expr, count: Expr) -> None:
        if not vectorise:
            with k.loop(count, "serial", "e") as e:
                element(outer, first + e)
            return
        with k.loop(count, "serial", "v") as v, k.loop(width, "vector", "lane") as lane:
            element(outer, (first + v) * width + lane)

    units = nest.inner // width
    if math.prod(nest.outer) > 1:
        with k.loop(math.prod(nest.outer), kind, "o") as o:
            outer = unravel(o, nest.outer)
            run(outer, 0, units)
            _tail(k, element, outer, units * width, nest.inner)
        return
    outer = [0] * len(nest.outer)
    chunk = max(CHUNK // width, 1)
    if kind != "independent" and units > chunk:
        with k.loop(-(-units // chunk), kind, "c") as c:
            run(outer, c * chunk, tirx.op.min(const(chunk, INDEX), const(units, INDEX) - c * chunk))
    else:
        run(outer, 0, units)
    _tail(k, element, outer, units * width, nest.inner)


def _tail(k: KernelBuilder, element, outer: Sequence[Expr], start: int, end: int) -> None:  # type: ignore[no-untyped-def]
    if end > start:
        with k.loop(end - start, "serial", "t") as t:
            element(outer, start + t)


def _store_element(
    k: KernelBuilder, value: Tensor, out: Storage, nest: _Nest, outer: Sequence[Expr], flat: Expr
) -> None:
    physical = [*outer, *unravel(flat, nest.trailing)]
    if nest.width:
        *physical, part, lane = physical
        physical.append(part * nest.width + lane)
    index = out.layout.logical(physical)
    result = value.read(k, index)
    if isinstance(out.layout, Blocked) and out.layout.padded_lanes:
        inside = index[1] < value.shape[1]
        result = tirx.Select(inside, result, const(0, value.dtype))
    k.store(out.buffer, out.layout.position(index), result)


def _choose_nest(value: Tensor, out: Storage, lanes: int) -> _Nest:
    physical = out.layout.physical_shape(value.shape)
    best: _Nest | None = None
    for trailing in range(1, len(physical) + 1):
        split = len(physical) - trailing
        nest = _judge_nest(value, out, _Nest(physical[:split], physical[split:], UNIT, False))
        if best is None or nest.quality <= best.quality:
            best = nest
        else:
            break
    if best is None:
        return _Nest((), (), UNIT, False)
    if best.quality == UNIT or physical[-1] % lanes or physical[-1] == lanes:
        return best
    parts = (*physical[:-1], physical[-1] // lanes)
    split_nest = _judge_nest(value, out, _Nest(parts, (lanes,), UNIT, False, lanes))
    return split_nest if split_nest.quality == UNIT else best


def _judge_nest(value: Tensor, out: Storage, nest: _Nest) -> _Nest:
    """Build the element once and look at how its loads and its store move with the flat loop."""
    k = KernelBuilder()
    analyzer = sym.Analyzer()
    outer = [tirx.Var(f"o{axis}", INDEX) for axis in range(len(nest.outer))]
    flat = tirx.Var("flat", INDEX)
    for variable, extent in zip([*outer, flat], [*nest.outer, nest.inner], strict=True):
        analyzer.bind(variable, ir.Range(0, max(extent, 1)))
    _store_element(k, value, out, nest, outer, flat)
    quality = max((_access(analyzer, offset, flat) for _, offset in k.loads), default=UNIT)
    return replace(nest, quality=quality, guarded=k.guarded)


def _access(analyzer: sym.Analyzer, offset: Expr, flat: Expr) -> int:
    coefficients = sym.detect_linear_equation(analyzer.simplify(offset), [flat])
    if len(coefficients) != 2:
        return SCATTERED
    step = coefficients[0]
    if not isinstance(step, tirx.IntImm):
        return SCATTERED
    return UNIT if int(step.value) in (0, 1) else STRIDED
