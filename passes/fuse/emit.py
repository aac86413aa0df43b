"""Operators newer than the model: emitted in the standard domain where its opset has them, else in ``graphopt``.

A ``graphopt`` operator has the name, attributes and meaning of the newest standard one; ``Expand`` writes it in terms of
the model's opset again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

DOMAIN = "graphopt"

SINCE: dict[str, int] = {
    "Attention": 23,
    "Gelu": 20,
    "HardSwish": 14,
    "LayerNormalization": 17,
    "Mish": 18,
    "RMSNormalization": 23,
    "Swish": 24,
}
"""The opset that brought each operator, with the meaning that is used here."""


def emit(
    match: Match,
    op_type: str,
    inputs: Sequence[ir.Value | np.ndarray | None],
    **attributes: Any,
) -> ir.Value:
    """A node of one of the operators in ``SINCE``."""
    domain = "" if match.opset >= SINCE[op_type] else DOMAIN
    return match.op(op_type, inputs, domain=domain, **attributes)


def standard_only(rule: Rule) -> Rule:
    """The rule, refusing wherever its result would need a newer opset than the model's."""

    def rewrite(match: Match) -> Replacement:
        result = rule.rewrite(match)
        newer = [node.op_type for node in match.new_nodes if node.domain == DOMAIN]
        return Refuse(f"{newer[0]} needs opset {SINCE[newer[0]]}") if newer else result

    return replace(rule, rewrite=rewrite)
