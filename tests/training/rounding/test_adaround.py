"""Learning how to round the weights of one layer."""

import pytest
import torch

from graphopt.training.rounding.adaround import Samples, error, learn
from graphopt.training.rounding.grid import Grid

STEP = 0.5


def product(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return inputs @ weight


def equal_inputs() -> tuple[torch.Tensor, Samples]:
    """All inputs of a sample are equal, so only the sum of the weights counts, and each of them is nearer to 0 than to 1 step."""
    generator = torch.Generator().manual_seed(1)
    weight = (0.2 + 0.25 * torch.rand(20, 3, generator=generator)) * STEP
    inputs = torch.randn(64, 1, generator=generator).expand(64, 20)
    return weight, Samples(inputs, inputs @ weight)


def grid(low: int = -7, high: int = 7) -> Grid:
    return Grid(torch.tensor(STEP), torch.tensor(0.0), low, high)


def test_some_are_rounded_up_although_all_are_nearer_to_the_level_below() -> None:
    weight, samples = equal_inputs()
    learned = learn(product, weight, grid(), samples, 500, 0)
    assert set(learned.unique().tolist()) == {0.0, 1.0}
    assert error(product, grid().values(learned), samples) < 0.05
    assert error(product, grid().values(torch.round(weight / STEP)), samples) == pytest.approx(1)


def test_levels_stay_within_the_range() -> None:
    weight, samples = equal_inputs()
    assert learn(product, weight, grid(high=0), samples, 20, 0).max() == 0


def test_without_steps_it_is_the_nearest_level() -> None:
    weight = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    _, samples = equal_inputs()
    torch.testing.assert_close(learn(product, weight, grid(), samples, 0, 0), torch.round(weight / STEP))


def test_the_same_seed_gives_the_same_levels() -> None:
    weight, samples = equal_inputs()
    first, second = (learn(product, weight, grid(), samples, 100, 3) for _ in range(2))
    assert torch.equal(first, second)


def test_grids() -> None:
    levels, scales = torch.tensor([-3, 0, 5]), torch.tensor(0.5)
    around_zero = Grid.of(levels, scales, torch.tensor(0))
    assert (around_zero.low, around_zero.high) == (-5, 5)
    shifted = Grid.of(levels, scales, torch.tensor(2))
    assert (shifted.low, shifted.high) == (-3, 5)
    torch.testing.assert_close(shifted.values(torch.tensor([7.0, 2.0])), torch.tensor([1.5, 0.0]))
    torch.testing.assert_close(shifted.values(shifted.exact(torch.tensor([1.0]))), torch.tensor([1.0]))
