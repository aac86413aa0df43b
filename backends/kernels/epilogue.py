"""What a kernel does to each result before storing it: the elementwise operators that follow, computed in registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.layout import Blocked, ChannelsLast
from graphopt.backends.tensor import Index, Storage, Tensor, lazy


@dataclass
class Epilogue:
    """A lazy tensor `result` computed from the hole that stands for a kernel's own value.

    Without following operators `result` is the hole itself.
    """

    value: ir.Value
    """The ONNX value that the kernel computes once its epilogue is applied."""
    shape: tuple[int, ...]
    dtype: str
    block: int = 0
    hole: Tensor = field(init=False)
    result: Tensor = field(init=False)
    _value: Callable[[Index], Expr] | None = None

    def __post_init__(self) -> None:
        self.hole = lazy(self.shape, self.dtype, self._fill, block=self.block)
        self.result = self.hole

    def apply(self, k: KernelBuilder, index: Index, value: Expr) -> Expr:
        """The result for `value`, the kernel's element at `index`."""
        self._value = lambda _: value
        with k.fresh_values():
            result = self.result.read(k, index)
        self._value = None
        return result

    def store(self, k: KernelBuilder, out: Storage, index: Index, value: Expr) -> None:
        """Store the result for `value`, the kernel's element at `index`, into `out`."""
        result = self.apply(k, index, value)
        layout = out.layout
        if isinstance(layout, ChannelsLast):
            k.store(out.buffer, layout.position(index), result)
            self._store_padding(k, out.buffer, layout, index)
            return
        if isinstance(layout, Blocked) and layout.padded_lanes:
            result = tirx.Select(index[1] < layout.shape[1], result, const(0, self.result.dtype))
        k.store(out.buffer, layout.position(index), result)

    def _store_padding(self, k: KernelBuilder, buffer: Buffer, layout: ChannelsLast, index: Index) -> None:
        """The zeros behind the channels of a pixel, together with the last of those."""
        if layout.padded_lanes:
            with k.when(tirx.EQ(index[1], const(layout.shape[1] - 1, "int32"))):
                for lane in range(layout.shape[1], layout.lanes):
                    position = layout.position([index[0], lane, *index[2:]])
                    k.store(buffer, position, const(0, self.result.dtype))

    def into(self, out: Storage) -> Callable[[KernelBuilder, Index, Expr], None]:
        """`store` into `out`."""
        return lambda k, index, value: self.store(k, out, index, value)

    def _fill(self, k: KernelBuilder, index: Index) -> Expr:
        assert self._value is not None
        return self._value(index)
