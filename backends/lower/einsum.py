"""Einsum, as diagonals, sums, and products of two operands at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphopt.backends.codegen.builder import Expr, KernelBuilder, cast, const
from graphopt.backends.kernels.threads import loop_kind
from graphopt.backends.layout import Strided
from graphopt.backends.lower.accumulate import accumulator_of
from graphopt.backends.lower.context import Lowering, storage_of
from graphopt.backends.lower.matmul import Product, multiply, product_kernel
from graphopt.backends.lower.operator import Anchor, Operator, Refused, attribute
from graphopt.backends.lower.views import reshape, transpose
from graphopt.backends.tensor import Index, Tensor, lazy, strided_view, unravel

PARALLEL_ELEMENTS = 32768
"""Elements read below which a sum stays on one thread."""

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """An operand and the label of each of its axes."""

    tensor: Tensor
    labels: Labels

    def extent(self, label: str) -> int:
        return self.tensor.shape[self.labels.index(label)]


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result; axes under an ellipsis are labelled `.0`, `.1` from the right.

    Without an arrow the result has the ellipsis, then the labels that occur once, in alphabetical order.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Refused(f"equation {equation!r} has {len(terms)} terms for {len(ranks)} inputs")
    inputs = [_labels(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    hidden = max((labels for labels in (_hidden(i) for i in inputs)), key=len, default=())
    if arrow:
        before, dots, after = right.partition("...")
        return inputs, (*before, *(hidden if dots else ()), *after)
    letters = left.replace(".", "").replace(",", "")
    return inputs, (*hidden, *sorted(letter for letter in letters if letters.count(letter) == 1))


def _labels(term: str, rank: int) -> Labels:
    before, dots, after = term.partition("...")
    covered = rank - len(before) - len(after)
    if covered < 0 or (covered and not dots):
        raise Refused(f"term {term!r} does not fit an input of rank {rank}")
    return (*before, *(f".{i}" for i in reversed(range(covered))), *after)


def _hidden(labels: Labels) -> Labels:
    return tuple(label for label in labels if label.startswith("."))


def lower_einsum(ctx: Lowering, node: ir.Node) -> None:
    """Einsum with any number of operands, taken from left to right; the last product goes straight into the result."""
    operands = [ctx.tensor(value) for value in node.inputs if value is not None]
    accumulator_of(operands[0].dtype)
    inputs, result = parse(attribute(node, "equation"), [tensor.rank for tensor in operands])
    extents: dict[str, int] = {}
    for tensor, labels in zip(operands, inputs, strict=True):
        for label, extent in zip(labels, tensor.shape, strict=True):
            extents[label] = extent if extents.get(label, 1) == 1 else extents[label]
    terms = [_distinct(ctx, tensor, labels, extents) for tensor, labels in zip(operands, inputs, strict=True)]
    total = terms[0]
    for position, term in enumerate(terms[1:], 2):
        needed = {*result, *(label for later in terms[position:] for label in later.labels)}
        pair = _pair(ctx, total, term, needed)
        if pair.summed and position == len(terms):
            multiply(ctx, node, pair.product(ctx, result), lambda k, index, value: value)
            return
        total = _contract(ctx, pair) if pair.summed else _elementwise(pair.left, pair.right)
    arranged = _arranged(_summed(ctx, total, set(result)), result, extents)
    ctx.values[node.outputs[0]] = arranged if result else _scalar(ctx, node, arranged)


def _distinct(ctx: Lowering, tensor: Tensor, labels: Labels, extents: dict[str, int]) -> Term:
    """A view with one axis for each label: diagonals of repeated ones, no axes of extent 1 that broadcast."""
    tensor = ctx.strided(tensor)
    layout = storage_of(tensor).layout
    assert isinstance(layout, Strided)
    strides: dict[str, int] = {}
    for label, extent, stride in zip(labels, tensor.shape, layout.strides, strict=True):
        if extent == extents[label]:
            strides[label] = strides.get(label, 0) + stride
    shape = [extents[label] for label in strides]
    return Term(strided_view(tensor, shape, list(strides.values()), layout.offset), tuple(strides))


def _scalar(ctx: Lowering, node: ir.Node, tensor: Tensor) -> Tensor:
    """A result without axes, in memory."""
    out = ctx.result(node.outputs[0], (), tensor.dtype)
    with ctx.kernel("einsum") as k:
        k.store(storage_of(out).buffer, 0, tensor.read(k, []))
    return out


@dataclass(frozen=True)
class Pair:
    """Two terms and what becomes of the labels they share: kept (`batch`) or summed."""

    left: Term
    right: Term
    batch: list[str]
    summed: list[str]

    @property
    def rows(self) -> list[str]:
        return [label for label in self.left.labels if label not in self.right.labels]

    @property
    def columns(self) -> list[str]:
        return [label for label in self.right.labels if label not in self.left.labels]

    def product(self, ctx: Lowering, result: Labels) -> Product:
        """The matrix product whose elements go to an index in the order of `result`."""
        rows, columns = self.rows, self.columns
        row_shape, column_shape = [*map(self.left.extent, rows)], [*map(self.right.extent, columns)]

        def restore(index: Sequence[Expr]) -> list[Expr]:
            *batch, y, x = index
            places = [*batch, *unravel(y, row_shape), *unravel(x, column_shape)]
            at = dict(zip([*self.batch, *rows, *columns], places, strict=True))
            return [at.get(label, 0) for label in result]

        left = _grouped(ctx, self.left, self.batch, rows, self.summed)
        right = _grouped(ctx, self.right, self.batch, self.summed, columns)
        return Product(left, right, restore)


def _pair(ctx: Lowering, left: Term, right: Term, needed: set[str]) -> Pair:
    """The pair, each term first summed over labels that only it has and nobody needs."""
    left, right = (
        _summed(ctx, left, needed | set(right.labels)),
        _summed(ctx, right, needed | set(left.labels)),
    )
    shared = [label for label in left.labels if label in right.labels]
    return Pair(left, right, [b for b in shared if b in needed], [s for s in shared if s not in needed])


def _contract(ctx: Lowering, pair: Pair) -> Term:
    """The product of two terms in memory, summed over the labels that are not needed any more."""
    labels = (*pair.batch, *pair.rows, *pair.columns)
    shape = [(pair.left if label in pair.left.labels else pair.right).extent(label) for label in labels]
    kernel = product_kernel(ctx, pair.product(ctx, labels))
    out = ctx.new(shape, pair.left.tensor.dtype)
    storage = storage_of(out)

    def store(k: KernelBuilder, index: Sequence[Expr], value: Expr) -> None:
        k.store(storage.buffer, storage.layout.position(index), cast(value, out.dtype))

    with ctx.kernel("einsum") as k:
        if out.size:
            kernel(store).emit(k)
    return Term(out, labels)


def _grouped(ctx: Lowering, term: Term, batch: Sequence[str], *groups: Sequence[str]) -> Tensor:
    """The axes in that order, every group joined to one axis: a view where possible."""
    order = [*batch, *(label for group in groups for label in group)]
    tensor = ctx.strided(transpose(ctx.strided(term.tensor), [term.labels.index(label) for label in order]))
    shape = [*map(term.extent, batch), *(math.prod(map(term.extent, group)) for group in groups)]
    if all(len(group) == 1 for group in groups):
        return tensor
    return reshape(ctx.dense(tensor), shape)


def _elementwise(left: Term, right: Term) -> Term:
    labels = (*left.labels, *(label for label in right.labels if label not in left.labels))
    shape = [left.extent(label) if label in left.labels else right.extent(label) for label in labels]

    def read(k: KernelBuilder, index: Index) -> Expr:
        at = dict(zip(labels, index, strict=True))
        factors = [term.tensor.read(k, [at[label] for label in term.labels]) for term in (left, right)]
        return factors[0] * factors[1]

    return Term(lazy(shape, left.tensor.dtype, read, 1 + left.tensor.cost + right.tensor.cost), labels)


def _summed(ctx: Lowering, term: Term, needed: set[str]) -> Term:
    """The term without the labels that are not needed."""
    kept = [label for label in term.labels if label in needed]
    gone = [label for label in term.labels if label not in needed]
    if not gone:
        return term
    x = ctx.cheap(term.tensor)
    kept_shape, gone_shape = [[term.extent(label) for label in labels] for labels in (kept, gone)]
    out = ctx.new(kept_shape, x.dtype)
    storage = storage_of(out)
    with ctx.kernel("sum") as k:
        kind = loop_kind(x.size, PARALLEL_ELEMENTS)
        with k.loop(math.prod(kept_shape), kind, "row") as row:
            place = dict(zip(kept, [k.bind(i) for i in unravel(row, kept_shape)], strict=True))

            total = k.local(1, x.dtype)
            k.assign(total, 0, const(0, x.dtype))
            with k.loop(math.prod(gone_shape), "serial", "position") as position:
                at = {**place, **dict(zip(gone, unravel(position, gone_shape), strict=True))}
                k.assign(total, 0, total[0] + x.read(k, [at[label] for label in term.labels]))
            k.store(storage.buffer, row, total[0])
    return Term(out, tuple(kept))


def _arranged(term: Term, labels: Labels, extents: dict[str, int]) -> Tensor:
    """The term with its axes in the order of the result; labels that only broadcast axes had get extent 1."""
    shape = [extents[label] for label in labels]

    def read(k: KernelBuilder, index: Index) -> Expr:
        at = dict(zip(labels, index, strict=True))
        return term.tensor.read(k, [at[label] for label in term.labels])

    if set(labels) == set(term.labels) and not term.tensor.is_lazy:
        return transpose(term.tensor, [term.labels.index(label) for label in labels])
    return lazy(shape, term.tensor.dtype, read, term.tensor.cost)


OPERATORS: dict[str, Operator] = {"Einsum": Anchor(lower_einsum)}
