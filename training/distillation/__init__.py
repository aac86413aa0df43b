"""Students that learn from teachers: accuracy that compression has cost is won back."""

from graphopt.training.distillation.batches import split
from graphopt.training.distillation.checkpoints import Checkpoint
from graphopt.training.distillation.learning import Learned, distil, run_size
from graphopt.training.distillation.loop import Round
from graphopt.training.distillation.pairing import paired
from graphopt.training.distillation.recipe import RATE_ALONE, Goal, Plan

__all__ = [
    "RATE_ALONE",
    "Checkpoint",
    "Goal",
    "Learned",
    "Plan",
    "Round",
    "distil",
    "paired",
    "run_size",
    "split",
]
