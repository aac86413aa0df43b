"""Wishes that nobody can fulfil are refused at once."""

from typing import Any

import pytest

from graphopt.errors import GraphoptError
from graphopt.training.distillation import Goal, Plan


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"kind": "guess"}, "unknown loss 'guess'"),
        ({"temperature": 0.0}, "temperature of 0"),
        ({"alpha": 1.5}, "not within 0 .. 1"),
        ({"feature_weight": 0.0}, "weight of 0 for features"),
    ],
)
def test_goals(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        Goal(**wish)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "either a number of epochs or minutes"),
        ({"epochs": 1, "minutes": 1.0}, "either a number of epochs or minutes"),
        ({"epochs": 0}, "0 epochs are none"),
        ({"minutes": 0.0}, "0.0 minutes are none"),
        ({"epochs": 1, "batch": 0}, "batch of 0"),
        ({"epochs": 1, "rate": 0.0}, "rate of 0"),
        ({"epochs": 1, "rate": float("nan")}, "rate of nan"),
        ({"epochs": 1, "decay": -1.0}, "decay of -1"),
        ({"epochs": 1, "stay": -1.0}, "pull of -1"),
        ({"epochs": 1, "blocks": 1.0}, "share of 1 of the time for blocks"),
        ({"epochs": 1, "patience": 0}, "patience of 0"),
        ({"epochs": 1, "augment": ("spin",)}, "unknown augmentation 'spin'"),
    ],
)
def test_plans(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        Plan(**wish)


def test_labels_count_only_where_they_are_wanted() -> None:
    assert Goal(alpha=0.7).hard == 0
    assert Goal(alpha=0.7, labels=True).hard == 0.7
