"""The rules of all operators that are followed, by domain and name."""

from graphopt.passes.prune.rules import (
    convolution,
    elementwise,
    normalisation,
    products,
    quantised,
    recurrent,
    reshaping,
    selection,
)
from graphopt.passes.prune.rules.rule import Rule

RULES: dict[tuple[str, str], Rule] = {
    **convolution.RULES,
    **elementwise.RULES,
    **normalisation.RULES,
    **products.RULES,
    **quantised.RULES,
    **recurrent.RULES,
    **reshaping.RULES,
    **selection.RULES,
}
