"""The state of lowering one model: the tensor of every value, the steps so far, and how tensors come into memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import tirx

from graphopt.artifacts.coding import Origin
from graphopt.backends import tensor as tensors
from graphopt.backends.codegen.builder import INDEX, Family, KernelBuilder
from graphopt.backends.codegen.program import Buffer, Kernel, Role, Step
from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.pointwise import store_pointwise
from graphopt.backends.layout import Blocked, ChannelsLast, Strided, dense, whole_chunks
from graphopt.backends.lower.machine import Machine
from graphopt.backends.lower.operator import BITS, CARRIERS, Operator, Varying, is_bfloat16
from graphopt.backends.lower.placement import Home
from graphopt.backends.schedules.choice import Rules, Schedules, Usable
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.tensor import Storage, Tensor, stored

CHEAP = 2
"""Operations per element that are better repeated than stored."""

NEWEST = 1_000
"""The opset of nodes in domain `graphopt`, which follow the newest definition of the operator."""


@dataclass
class Lowering:
    """What lowering knows and has made so far."""

    core: Core
    opsets: Mapping[str, int]
    machine: Machine
    values: dict[ir.Value, Tensor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    layer: str = ""
    done: set[ir.Node] = field(default_factory=set)
    outputs: dict[ir.Value, Buffer | None] = field(default_factory=dict)
    """The model's outputs, with the caller's buffer once a kernel computes straight into it."""
    schedules: Schedules = field(default_factory=Rules)
    homes: Mapping[ir.Value, Home] = field(default_factory=dict)
    """Values that a kernel computes straight into a part of another one."""
    wholes: dict[ir.Value, Tensor] = field(default_factory=dict)
    """The memory of values of which parts have been computed."""
    workload: Workload | None = None
    """What the node at hand had a schedule chosen for."""
    rounded: Mapping[ir.Value, Tensor] = field(default_factory=dict)
    """The operands of the node at hand as what they were rounded to, if all were."""
    _constants: dict[tuple[str, bytes], Buffer] = field(default_factory=dict)
    _copies: dict[tuple[int, Hashable], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _counter: int = 0

    @property
    def lanes(self) -> int:
        """float32 lanes of a vector register, and the block of blocked layouts."""
        return self.core.lanes

    def twin(self, family: Family) -> Family:
        """What the machine has in place of a family of kernels."""
        return self.machine.twin(family)

    # Values

    def operator(self, node: ir.Node) -> Operator | None:
        """How to lower a node, or None if nothing here does."""
        if node.op_type not in CARRIERS and any(map(is_bfloat16, (*node.inputs, *node.outputs))):
            return None
        found = self.machine.operators.get(node.domain, {}).get(node.op_type)
        return found.choose(node) if isinstance(found, Varying) else found

    def opset(self, node: ir.Node) -> int:
        """The opset version whose definition of the operator holds for a node."""
        return NEWEST if node.domain == "graphopt" else self.opsets.get("", NEWEST)

    def tensor(self, value: ir.Value) -> Tensor:
        """The tensor of an ONNX value that has been lowered, or of a constant."""
        if value not in self.values:
            assert value.const_value is not None, value.name
            array = value.const_value.numpy()
            self.values[value] = self.constant(array.view(BITS) if is_bfloat16(value) else array)
        return self.values[value]

    def inputs(self, node: ir.Node) -> list[Tensor | None]:
        """The tensors of a node's inputs; None where an optional one is absent."""
        return [None if value is None else self.tensor(value) for value in node.inputs]

    def operands(self, node: ir.Node) -> list[Tensor | None]:
        """The inputs, as what they were rounded to where that is what a product multiplies."""
        pairs = zip(node.inputs, self.inputs(node), strict=True)
        return [x if value is None or x is None else self.rounded.get(value, x) for value, x in pairs]

    def constant(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor of compile-time data."""
        return tensors.constant(array, lambda: self.constant_buffer(array))

    def computed_buffer(self, origin: Origin) -> Buffer:
        """The buffer holding what is computed from fewer numbers."""
        buffer = self.constant_buffer(origin.expanded)
        buffer.origin = origin
        return buffer

    def constant_buffer(self, array: np.ndarray[Any, Any]) -> Buffer:
        """The buffer holding `array`; equal arrays share one."""
        array = np.ascontiguousarray(array)
        key = (str(array.dtype), hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest())
        if key not in self._constants:
            name = f"constant{len(self._constants)}"
            self._constants[key] = Buffer(name, array.size, str(array.dtype), Role.CONSTANT, array)
        return self._constants[key]

    def schedule(self, workload: Workload, usable: Usable = lambda config: True) -> Config:
        """The schedule of the kernels that come next."""
        self.workload = workload
        return self.schedules.choose(workload, self.core, usable)

    # Memory

    def buffer(self, size: int, dtype: str) -> Buffer:
        """A new temporary."""
        self._counter += 1
        return Buffer(f"temporary{self._counter}", size, dtype)

    def new(self, shape: Sequence[int], dtype: str, block: int = 0) -> Tensor:
        """A new tensor in memory, row-major or channel-blocked."""
        shape = tuple(shape)
        layout = self.twin(Blocked)(shape, block) if block > 1 else dense(shape)
        return stored(self.buffer(layout.size(shape), dtype), shape, layout)

    def result(self, value: ir.Value, shape: Sequence[int], dtype: str, block: int = 0) -> Tensor:
        """New memory for an ONNX value: the caller's buffer where it is an output of the model and row-major."""
        self.values[value] = tensor = self._place(value, shape, dtype, block)
        return tensor

    def _place(self, value: ir.Value, shape: Sequence[int], dtype: str, block: int) -> Tensor:
        """New memory for a value, part of another one's where it has its home there."""
        if value in self.wholes:
            return self.wholes[value]
        if block <= 1 and value in self.outputs and self.outputs[value] is None:
            self.outputs[value] = buffer = Buffer(value.name or "", math.prod(shape), dtype, Role.OUTPUT)
            return stored(buffer, shape)
        home = self.homes.get(value)
        if home is None or not self._lives_there(shape, block, home):
            return self.new(shape, dtype, block)
        if home.whole not in self.wholes:
            of_whole = whole_chunks(home.shape[1]) if block > self.lanes else block
            self.wholes[home.whole] = self._place(home.whole, home.shape, dtype, of_whole)
        return self.part(self.wholes[home.whole], 1, home.start, shape)

    def _lives_there(self, shape: Sequence[int], block: int, home: Home) -> bool:
        """Whether a value of this block may have its home: in blocks of a vector, or among channels that all lie together."""
        return block == self.lanes or (self.lanes == 1 and block == whole_chunks(shape[1]))

    def strided(self, tensor: Tensor) -> Tensor:
        """The same tensor in memory with any strides."""
        if tensor.constant is not None:
            return stored(self.constant_buffer(tensor.constant), tensor.shape)
        if tensor.storage is not None and isinstance(tensor.storage.layout, Strided):
            return tensor
        return self.store(tensor)

    def dense(self, tensor: Tensor) -> Tensor:
        """The same tensor in memory, row-major without gaps (its offset in the buffer may differ from 0)."""
        tensor = self.strided(tensor)
        assert tensor.storage is not None
        layout = tensor.storage.layout
        assert isinstance(layout, Strided)
        return tensor if layout.is_dense(tensor.shape) else self.store(tensor)

    def blocked(self, tensor: Tensor) -> Tensor:
        """The same tensor in memory, blocked by `lanes` channels; row-major where that is one. Its rank is at least 3."""
        if tensor.is_blocked:
            return tensor
        return self.store(tensor, self.lanes) if self.lanes > 1 else self.dense(tensor)

    def in_memory(self, tensor: Tensor) -> Tensor:
        """The same tensor stored in whatever layout it has."""
        if tensor.storage is not None:
            return tensor
        return self.store(tensor, tensor.block) if tensor.is_lazy else self.strided(tensor)

    def cheap(self, tensor: Tensor) -> Tensor:
        """The tensor itself if reading an element twice costs little, else the same tensor in memory."""
        return self.in_memory(tensor) if tensor.is_lazy and tensor.cost > CHEAP else tensor

    def unconditional(self, tensor: Tensor) -> Tensor:
        """The tensor itself, or the same in memory if elements of it are computed under conditions, as those of a Pad are:
        vectorised loops must not read such."""
        if not tensor.is_lazy:
            return tensor
        trial = KernelBuilder()
        tensor.read(trial, [tirx.Var(f"i{axis}", INDEX) for axis in range(tensor.rank)])
        return self.in_memory(tensor) if trial.guarded else tensor

    def part(self, tensor: Tensor, axis: int, start: int, shape: Sequence[int]) -> Tensor:
        """The part of a stored tensor from `start` along `axis`; of a blocked one along channels, whole blocks."""
        storage = storage_of(tensor)
        layout = storage.layout
        if isinstance(layout, Blocked):
            assert axis == 1
            assert start % layout.block == 0 or isinstance(layout, ChannelsLast)
            return stored(storage.buffer, shape, layout.part(tuple(shape), start))
        return stored(
            storage.buffer, shape, Strided(layout.strides, layout.offset + start * layout.strides[axis])
        )

    def store(self, tensor: Tensor, block: int = 0) -> Tensor:
        """A copy of `tensor` in new memory; asking twice gives the same copy."""
        return self.kept(tensor, block, lambda: self._copied(tensor, block))

    def kept(self, tensor: Tensor, form: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives for `tensor` in some form; asking twice gives the same."""
        key = (id(tensor), form)
        if key not in self._copies:
            self._copies[key] = (tensor, make())
        return self._copies[key][1]

    def _copied(self, tensor: Tensor, block: int) -> Tensor:
        copy = self.new(tensor.shape, tensor.dtype, block)
        self.copy(tensor, copy)
        return copy

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Compute `source` into the memory of `target`."""
        assert target.storage is not None
        with self.kernel("copy" if source.storage else "pointwise") as k:
            k.twin(store_pointwise)(k, source, target.storage, self.lanes)

    # Steps

    @contextmanager
    def kernel(self, name: str) -> Iterator[KernelBuilder]:
        """A kernel built in the body of the `with` statement and added to the steps."""
        builder = self.machine.builder()
        yield builder
        if not builder.written:
            return
        written = frozenset(builder.written)
        for made in self.machine.functions(builder):
            kernel = Kernel(name, made.function, made.buffers, written, self.layer)
            kernel.workload, kernel.launch = self.workload, made.launch
            self.steps.append(kernel)

    @contextmanager
    def block(self) -> Iterator[list[Step]]:
        """Steps added in the body of the `with` statement go into the list it yields (the body of a loop or branch)."""
        outer, self.steps = self.steps, []
        copies, self._copies = self._copies, dict(self._copies)
        try:
            yield self.steps
        finally:
            self.steps, self._copies = outer, copies


def storage_of(tensor: Tensor) -> Storage:
    """The storage of a tensor that is known to be in memory."""
    assert tensor.storage is not None
    return tensor.storage
