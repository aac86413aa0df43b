"""Losses next to what their definitions give."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from graphopt.training.distillation.losses import LOSSES, attention, direction, distance, feature, soft_labels

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)])
def test_soft_labels_are_a_divergence(shape: tuple[int, ...]) -> None:
    student, teacher = normal(*shape), normal(*shape)
    p, q = (softmax(each.numpy().astype(np.float64) / 3, axis=-1) for each in (teacher, student))
    expected = 9 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(soft_labels(student, teacher, 3.0).numpy(), expected, rtol=1e-4)


def test_gradients_of_soft_labels_keep_their_size() -> None:
    """For high temperatures they come near to the difference of the scores, over the number of classes."""
    student, teacher = normal(4, 6).requires_grad_(), normal(4, 6)
    soft_labels(student, teacher, 1e3).sum().backward()
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(-1, keepdim=True)) / 6
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=2e-3)


def test_direction_does_not_see_lengths() -> None:
    teacher = normal(3, 8)
    assert direction(5 * teacher, teacher, 1.0).abs().max() < 1e-6
    torch.testing.assert_close(direction(-teacher, teacher, 1.0), torch.full((3,), 2.0))


def test_distance_is_relative() -> None:
    student, teacher = normal(3, 4, 2), normal(3, 4, 2)
    found = distance(student, teacher, 1.0)
    expected = (student - teacher).square().mean((1, 2)) / teacher.square().mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(distance(10 * student, 10 * teacher, 1.0), found)
    assert distance(normal(3), torch.zeros(3), 1.0).isfinite().all()


def test_attention_sees_places_and_not_channels() -> None:
    teacher = normal(2, 6, 4, 4)
    same = torch.cat([teacher, teacher.flip(1)], 1)
    assert attention(same, teacher, 1.0).max() < 1e-10
    assert attention(teacher.roll(1, -1), teacher, 1.0).min() > 0.01


def test_features_are_compared_as_their_shapes_allow() -> None:
    teacher = normal(2, 6, 4, 4)
    torch.testing.assert_close(feature(teacher + 1, teacher, 1.0), distance(teacher + 1, teacher, 1.0))
    assert feature(teacher[:, :3], teacher, 1.0).shape == (2,)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_there_is_nothing_to_learn_from_oneself(name: str) -> None:
    same = normal(3, 5, 4, 4).requires_grad_()
    found = LOSSES[name](same, same.detach().clone(), 2.0)
    assert found.abs().max() < 1e-6
    found.sum().backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-5
