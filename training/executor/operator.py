"""What the tables of operators hold: functions that make, from a node, the function of tensors that it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir
import torch

if TYPE_CHECKING:
    from graphopt.training.executor.program import Program

Tensor: TypeAlias = torch.Tensor

Compute: TypeAlias = Callable[..., Tensor | Sequence[Tensor]]
"""Takes a tensor for each input of a node, None for an absent one; gives that of its output, or those of several."""

Maker = Callable[["Node"], Compute]
"""Looks at a node once, when a module is made. Raises Refused for what is not covered."""


class Refused(Exception):
    """A node cannot be computed; the message says why."""


@dataclass(frozen=True)
class Node:
    """A node as makers see it.

    `outputs` is their number, `last_read` the index of the last one that anybody reads. `types` has the element types of the inputs,
    None where absent or unknown; `single` stands for float32. Attributes are Python values, tensors are torch's; `branches` are
    the graphs of control flow.
    """

    op: str
    version: int
    outputs: int
    last_read: int
    types: Sequence[ir.DataType | None]
    single: torch.dtype
    attributes: Mapping[str, Any]
    branches: Mapping[str, Program] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def dtype(self, number: int) -> torch.dtype:
        """The torch type of an ONNX element type that is given by its number."""
        return torch_dtype(ir.DataType(number), self.single)


DTYPES = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT4: torch.int8,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.DOUBLE: torch.float64,
}
"""Elements narrower than a byte take one each."""


def torch_dtype(dtype: ir.DataType, single: torch.dtype) -> torch.dtype:
    """The torch type of an element type. Raises Refused where torch has none."""
    if dtype == ir.DataType.FLOAT:
        return single
    if dtype not in DTYPES:
        raise Refused(f"torch has no elements of type {dtype.name}")
    return DTYPES[dtype]


def always(compute: Compute) -> Maker:
    """An operator without attributes."""
    return lambda node: compute


def integers(tensor: Tensor) -> list[int]:
    """The elements of a small tensor that says where or how large something is."""
    return [int(each) for each in tensor.reshape(-1).tolist()]


def require(condition: bool, reason: str) -> None:
    """Raises Refused with `reason` unless the condition holds."""
    if not condition:
        raise Refused(reason)


def one_output(node: Node) -> None:
    """Raises Refused for further outputs that somebody reads."""
    require(node.last_read == 0, "only its first output is supported")
