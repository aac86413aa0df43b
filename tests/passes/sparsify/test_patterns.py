"""Where zeros may lie: how many there are, and that the lowest scores lose."""

import numpy as np
import pytest

from graphopt.errors import GraphoptError
from graphopt.passes.sparsify.patterns import FewOfEach, Share, find_pattern

SCORES = np.random.default_rng(1).random((2, 24, 40))


@pytest.mark.parametrize("ratio", [0.001, 0.3, 0.5, 0.9, 0.9999])
def test_a_share_of_the_weights_is_zero_and_the_lowest_are(ratio: float) -> None:
    keep = Share(ratio).keep(SCORES)
    assert (~keep).sum() == int(ratio * SCORES.size)
    assert SCORES[keep].min() >= SCORES[~keep].max(initial=0)


def test_vectors_are_zero_or_not_as_a_whole() -> None:
    keep = Share(0.5, 16).keep(SCORES)
    assert keep.shape == SCORES.shape
    for start in (0, 16, 32):
        vectors = keep[..., start : start + 16]
        assert (vectors.all(axis=-1) | ~vectors.any(axis=-1)).all()
    means = np.stack([SCORES[..., start : start + 16].mean(axis=-1) for start in (0, 16, 32)])
    kept = np.stack([keep[..., start] for start in (0, 16, 32)])
    assert means[kept].min() >= means[~kept].max()


def test_a_vector_longer_than_the_layer_is_wide() -> None:
    keep = Share(0.5, 64).keep(SCORES)
    assert (~keep).sum() == SCORES.size // 2


def test_layers_that_share_a_ratio_lose_by_their_scores() -> None:
    low, high = Share(0.5).keep_best([SCORES, SCORES + 1])
    assert not low.any()
    assert high.all()


@pytest.mark.parametrize(("kept", "rows"), [(2, 4), (1, 4), (3, 8), (1, 2)])
def test_few_of_each(kept: int, rows: int) -> None:
    keep = FewOfEach(kept, rows).keep(SCORES)
    groups = keep.reshape(2, -1, rows, 40)
    assert (groups.sum(axis=2) == kept).all()
    scores = SCORES.reshape(groups.shape)
    lowest = np.where(groups, scores, np.inf).min(axis=2)
    assert (lowest >= np.where(groups, 0, scores).max(axis=2)).all()


def test_rows_that_are_left_over_are_kept() -> None:
    keep = FewOfEach(1, 5).keep(SCORES)
    assert keep[:, 20:].all()
    assert keep[:, :20].mean() == 0.2


def test_steps_lead_to_the_pattern_with_more_zeros_each_time() -> None:
    for pattern in (Share(0.7, 4), FewOfEach(1, 4), FewOfEach(2, 4), FewOfEach(1, 24)):
        steps = pattern.steps(8)
        assert steps[-1] == pattern
        assert 1 <= len(steps) <= 8
        zeros = [int((~step.keep(SCORES)).sum()) for step in steps]
        assert zeros == sorted(set(zeros))
        assert zeros[0] > 0
    assert Share(0.7).steps(1) == [Share(0.7)]
    assert FewOfEach(1, 4).steps(1) == [FewOfEach(1, 4)]


@pytest.mark.parametrize(
    ("text", "ratio", "expected"),
    [(None, 0.5, Share(0.5)), ("16x1", 0.25, Share(0.25, 16)), ("2:4", None, FewOfEach(2, 4))],
)
def test_patterns_by_name(text: str | None, ratio: float | None, expected: object) -> None:
    assert find_pattern(text, ratio) == expected


@pytest.mark.parametrize(
    ("text", "ratio", "message"),
    [
        (None, None, "say how many"),
        ("16x1", None, "say how many"),
        (None, 1.0, "between 0 and 1"),
        (None, 0.0, "between 0 and 1"),
        (None, float("nan"), "between 0 and 1"),
        ("0x1", 0.5, "vectors of 0"),
        ("2:4", 0.5, "leave the ratio out"),
        ("4:4", None, "is no pattern"),
        ("0:4", None, "is no pattern"),
        ("1x16", 0.5, "unknown pattern"),
        ("2;4", 0.5, "unknown pattern"),
    ],
)
def test_requests_that_say_nothing(text: str | None, ratio: float | None, message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        find_pattern(text, ratio)
