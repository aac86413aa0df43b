"""AdaRound: which way to round each weight of one layer, by gradient descent (Nagel et al. 2020, "Up or Down?").

Each weight has a number that a rectified sigmoid maps to 0 (down) .. 1 (up). A regulariser, more and more steep, drives all of them
to one of both ends, while the layer's results stay near those on floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from graphopt.training.executor.operator import Tensor
from graphopt.training.rounding.grid import Grid

LOWEST, HIGHEST = -0.1, 1.1
"""The rectified sigmoid before it is cut to 0 .. 1: so it gets there."""

BATCH = 32
"""Samples of a step."""

LEARNING_RATE = 1e-2

WARM_UP = 0.2
"""Share of the steps without the regulariser."""

STEEPNESS = (20.0, 2.0)
"""The regulariser's exponent, from first to last: only what is near an end is driven to it, then all."""

STRENGTH = 1.0
"""Of the regulariser, as a share of the error that rounding to the nearest makes."""


TINY = 1e-30
"""What is divided by at least."""


@dataclass(frozen=True)
class Samples:
    """What a layer reads in the quantised model, and what it gives on floats; samples along the first axis."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, indices: Tensor | slice) -> Samples:
        """Some of them."""
        return Samples(self.inputs[indices], self.targets[indices])


Run = Callable[[Tensor, Tensor], Tensor]
"""A layer: its results from its inputs and its weights."""


def error(run: Run, weight: Tensor, samples: Samples) -> Tensor:
    """The mean square of what results miss, relative to that of the targets."""
    missed = (run(samples.inputs, weight) - samples.targets).square().mean()
    return missed / samples.targets.square().mean().clamp_min(TINY)


def learn(run: Run, floats: Tensor, grid: Grid, samples: Samples, steps: int, seed: int) -> Tensor:
    """The levels of `floats`, each next to its exact one and on the grid, for which the layer errs least."""
    exact = grid.exact(floats)
    down = torch.floor(exact)
    position = torch.logit((exact - down - LOWEST) / (HIGHEST - LOWEST)).requires_grad_()
    with torch.no_grad():
        nearest = error(run, grid.values(exact.round()), samples.part(slice(BATCH))).clamp_min(TINY)
    optimizer = torch.optim.Adam([position], LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        batch = samples.part(torch.randint(len(samples), (min(BATCH, len(samples)),), generator=generator))
        up = _rectified(position)
        loss = error(run, grid.values(down + up), batch) / nearest + STRENGTH * _undecided(up, step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return grid.cut(down + (position.detach() >= 0))


def _rectified(position: Tensor) -> Tensor:
    return (torch.sigmoid(position) * (HIGHEST - LOWEST) + LOWEST).clamp(0, 1)


def _undecided(up: Tensor, progress: float) -> Tensor | float:
    """How far the weights are from being decided, 0 .. 1 on average; nothing while they warm up."""
    if progress < WARM_UP:
        return 0.0
    first, last = STEEPNESS
    passed = (progress - WARM_UP) / (1 - WARM_UP)
    exponent = last + (first - last) * 0.5 * (1 + math.cos(math.pi * passed))
    return (1 - (2 * up - 1).abs().pow(exponent)).mean()
