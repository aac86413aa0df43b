"""A tensor during lowering: a shape, a dtype, and a way to read one element.

An element is read either from memory (`storage`), from a compile-time array (`constant`), or by computing it from
other tensors (neither is set: the tensor is *lazy*). Lazy tensors cost nothing until a kernel reads them, which is how
elementwise operators and views fuse into the kernels around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.layout import Blocked, Layout, Strided, dense, row_major_strides

Index = Sequence[Expr]
Reader = Callable[[KernelBuilder, Index], Expr]


@dataclass(frozen=True)
class Storage:
    """A buffer and the layout in which a tensor lies in it."""

    buffer: Buffer
    layout: Layout


@dataclass(frozen=True, eq=False)
class Tensor:
    """See the module's docstring. `reader(builder, index)` gives the element at a logical index."""

    shape: tuple[int, ...]
    dtype: str
    reader: Reader
    storage: Storage | None = None
    constant: np.ndarray[Any, Any] | None = None
    cost: int = 0
    """Arithmetic operations per element that reading it repeats."""
    block: int = 0
    """The channel block of its layout, or of the layout it is best stored in; 0 for row-major."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_lazy(self) -> bool:
        return self.storage is None and self.constant is None

    @property
    def is_blocked(self) -> bool:
        """Whether it lies in memory with a blocked layout."""
        return self.storage is not None and isinstance(self.storage.layout, Blocked)

    def read(self, k: KernelBuilder, index: Index) -> Expr:
        """The element at `index`, computed once per index and kernel block."""
        index = tuple(index)
        key = (id(self), *(i if isinstance(i, int) else id(i) for i in index))
        return k.memoize(key, (self, index), lambda: self.reader(k, index))


def stored(
    buffer: Buffer, shape: Sequence[int], layout: Layout | None = None, dtype: str | None = None
) -> Tensor:
    """A tensor that lies in `buffer`, row-major unless a layout is given."""
    layout = dense(shape) if layout is None else layout

    def read(k: KernelBuilder, index: Index) -> Expr:
        return k.load(buffer, layout.position(index))

    block = layout.own if isinstance(layout, Blocked) else 0
    return Tensor(tuple(shape), dtype or buffer.dtype, read, storage=Storage(buffer, layout), block=block)


def lazy(shape: Sequence[int], dtype: str, reader: Reader, cost: int = 0, block: int = 0) -> Tensor:
    """A tensor whose elements are computed where they are read."""
    return Tensor(tuple(shape), dtype, reader, cost=cost, block=block)


def constant(array: np.ndarray[Any, Any], buffer: Callable[[], Buffer]) -> Tensor:
    """A compile-time array. A single element becomes a literal; otherwise `buffer()` gives the memory that holds it."""
    if array.size == 1:
        value = array.reshape(()).item()
        return Tensor(
            array.shape, str(array.dtype), lambda k, index: const(value, str(array.dtype)), constant=array
        )
    layout = dense(array.shape)

    def read(k: KernelBuilder, index: Index) -> Expr:
        return k.load(buffer(), layout.position(index))

    return Tensor(array.shape, str(array.dtype), read, constant=array)


def broadcast_index(index: Index, shape: Sequence[int]) -> list[Expr]:
    """The index into a tensor of `shape` for an index into a tensor it is broadcast to (numpy's rules)."""
    tail = index[len(index) - len(shape) :]
    return [0 if extent == 1 else i for i, extent in zip(tail, shape, strict=True)]


def strided_view(source: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
    """A tensor over the same buffer with other strides. `source` must be stored with a strided layout."""
    assert source.storage is not None
    return stored(source.storage.buffer, shape, Strided(tuple(strides), offset), source.dtype)


def unravel(position: Expr, shape: Sequence[int]) -> list[Expr]:
    """The row-major index of flat `position` in `shape`."""
    index: list[Expr] = []
    for axis, stride in enumerate(row_major_strides(shape)):
        if shape[axis] == 1:
            index.append(0)
            continue
        value = position if stride == 1 else position // stride
        leading = all(extent == 1 for extent in shape[:axis])
        index.append(value if leading else value % shape[axis])
    return index
