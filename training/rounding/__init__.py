"""Whether each quantised weight is rounded up or down, learned from data."""

from graphopt.training.rounding.learning import LayerRounding, learn_rounding

__all__ = ["LayerRounding", "learn_rounding"]
