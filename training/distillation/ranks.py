"""Several processes that learn together, started by torch's launcher; without it there is one.

torchrun --nproc-per-node 2 -m graphopt distill ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from graphopt.training.executor.operator import Tensor


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Makes each tensor the mean over all processes, in place and in one message."""
        found = list(tensors)
        if self.size == 1 or not found:
            return
        joined = torch.cat([tensor.reshape(-1) for tensor in found])
        distributed.all_reduce(joined)
        parts = (joined / self.size).split([tensor.numel() for tensor in found])
        for tensor, part in zip(found, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def agree(self, value: Any) -> Any:
        """What the first process says."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def launched(device: torch.device) -> Iterator[Ranks]:
    """Those that the launcher has started, or this process alone."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield Ranks()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
