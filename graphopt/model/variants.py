"""Shape variants: one copy of a model for every combination of the sizes that its free dimensions are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.errors import ShapeError
from graphopt.model import (
    bind_dims,
    bind_first_dims,
    bind_values,
    free_dims,
    freeze_defaults,
    frozen_notice,
    normalise,
)
from graphopt.model.feasible import require_feasible

Sizes = int | Sequence[int]


@dataclass(frozen=True)
class Binding:
    """What fixes a model: sizes by dimension name (several make variants), whole input shapes, and values of inputs."""

    dims: Mapping[str, Sizes] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Variants:
    """Normalised models with fixed shapes, and notices of what was decided without being asked."""

    models: list[ir.Model]
    notices: list[str]


def make_variants(model: ir.Model, binding: Binding) -> Variants:
    """One normalised copy of `model` a combination of sizes; `model` itself is not changed.

    A free first dimension becomes 1, with a notice. Raises ShapeError for any other dimension left free, naming the
    options that would fix it, and ModelError or ShapeError for what no compiler could make work.
    """
    models, notices = [], []
    for sizes in combinations(binding.dims):
        variant = model.clone()
        bind_values(variant, binding.values)
        bind_dims(variant, sizes, binding.input_shapes)
        notices = [
            f"{name}: first dimension {dim!r} set to 1" for name, dim in bind_first_dims(variant).items()
        ]
        _require_fixed(variant)
        notices += frozen_notice(normalise(variant))
        freeze_defaults(variant)
        require_feasible(variant)
        models.append(variant)
    return Variants(models, notices)


def combinations(dims: Mapping[str, Sizes]) -> list[dict[str, int]]:
    """Every combination of one size a dimension."""
    choices = [[size] if isinstance(size, int) else list(size) for size in dims.values()]
    return [dict(zip(dims, sizes, strict=True)) for sizes in product(*choices)]


def _require_fixed(model: ir.Model) -> None:
    free = free_dims(model)
    if not free:
        return
    lines = [f"  {name}: {', '.join(dims)}" for name, dims in free.items()]
    named = sorted({dim for dims in free.values() for dim in dims if not dim.startswith(("axis ", "rank"))})
    option = f"--dim {named[0]}=SIZE" if named else f"--input-shape {next(iter(free))}=D0,D1,..."
    raise ShapeError("these inputs have free dimensions:\n" + "\n".join(lines) + f"\nfix them with {option}")
