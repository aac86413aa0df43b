"""Fusion: several operators become one standard operator, and constants move into the weights next to them."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphopt.passes.fuse import (
    activations,
    affine,
    attention,
    bounds,
    concat,
    constants,
    depth_space,
    gemm,
    normalisations,
    padding,
    pooling,
    quantized,
)
from graphopt.passes.fuse.emit import standard_only
from graphopt.rewriting.pipeline import Context, Outcome
from graphopt.rewriting.rewrite import Rule, apply_rules

RECOGNISE: list[Rule] = [
    *normalisations.RULES,
    *attention.RULES,
    *activations.RULES,
    *bounds.RULES,
    *depth_space.RULES,
]
"""Operators hidden in primitives. They go first, before the rules below take their constants away."""

STANDARD_RECOGNISE = [standard_only(rule) for rule in RECOGNISE]
"""The same, for models whose opset must stay as it is."""

MERGE: list[Rule] = [*affine.RULES, *gemm.RULES, *padding.RULES, *pooling.RULES, *constants.RULES]
"""Constants and neighbours that a weighted operator or a pool can take in."""

COMPILED: list[Rule] = [*gemm.WEIGHT_RULES, *quantized.RULES, *concat.RULES]
"""What only the compiler gains by."""


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
        if self.for_compile:
            return apply_rules(model, RECOGNISE) + apply_rules(model, [*MERGE, *COMPILED])
        return apply_rules(model, STANDARD_RECOGNISE) + apply_rules(model, MERGE)
