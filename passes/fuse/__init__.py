"""Fusion: several operators become one standard operator, and constants move into the weights next to them."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphopt.passes.fuse import (
    activations,
    affine,
    attention,
    bounds,
    depth_space,
    gemm,
    normalisations,
    padding,
    pooling,
)
from graphopt.passes.fuse.emit import standard_only
from graphopt.pipeline import Context, Outcome
from graphopt.rewrite import Rule, apply_rules

RECOGNISE: list[Rule] = [
    *normalisations.RULES,
    *attention.RULES,
    *activations.RULES,
    *bounds.RULES,
    *depth_space.RULES,
]
"""Operators hidden in primitives. They go first, before the rules below take their constants away."""

MERGE: list[Rule] = [*affine.RULES, *gemm.RULES, *padding.RULES, *pooling.RULES]
"""Constants and neighbours that a weighted operator or a pool can take in."""


@dataclass(frozen=True)
class Fuse:
    """The same results up to rounding, with fewer nodes; the opset of the model stays as it is.

    With ``for_compile``, operators that are newer than the model's opset are emitted in the domain ``graphopt``, with the
    name and meaning of the standard ones; ``Expand`` turns them back. Without it, those rules refuse.
    """

    name: ClassVar[str] = "fuse"
    for_compile: bool = False

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Recognises operators first, then merges constants."""
        return apply_rules(model, self._gated(RECOGNISE)) + apply_rules(model, self._gated(MERGE))

    def _gated(self, rules: list[Rule]) -> list[Rule]:
        return rules if self.for_compile else [standard_only(rule) for rule in rules]
