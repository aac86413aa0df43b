"""Operators that have no place in a compiled model, with the reason a user is given."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.backends.lower.context import Lowering
from graphopt.backends.lower.operator import Lowered, Operator, Refused
from graphopt.backends.tensor import Tensor

DEPENDS_ON_DATA = "the shape of its result depends on the data; shapes are fixed when a model is compiled"
RANDOM = "it draws random numbers; compute them outside the model and pass them as an input"

REASONS: dict[str, str] = {
    **dict.fromkeys(("NonMaxSuppression", "NonZero", "Unique"), DEPENDS_ON_DATA),
    **dict.fromkeys(("Bernoulli", "Multinomial"), RANDOM),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), RANDOM),
}


def _refused(reason: str) -> Lowered:
    def lower(ctx: Lowering, node: ir.Node) -> Sequence[Tensor | None]:
        raise Refused(reason)

    return Lowered(lower)


OPERATORS: dict[str, Operator] = {name: _refused(reason) for name, reason in REASONS.items()}
