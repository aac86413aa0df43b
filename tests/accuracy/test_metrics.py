"""Metrics by name, those of the user, and what is wrong with either."""

from pathlib import Path

import numpy as np
import pytest

from graphopt.accuracy.metrics import METRICS, find_metric
from graphopt.errors import DataError, GraphoptError

SCORES = np.array([[0.1, 0.5, 0.2, 0, 0, 0, 0.3], [0.9, 0.5, 0.2, 0.4, 0.3, 0.6, 0.0]], np.float32)
LABELS = np.array([1, 6])


def score(
    name: str, outputs: np.ndarray, original: np.ndarray | None = None, labels: object = LABELS
) -> float:
    before = outputs if original is None else original
    return find_metric(name)({"y": outputs}, {"y": before}, {"x": outputs}, labels)  # type: ignore[arg-type]


def test_those_of_the_table() -> None:
    assert score("top1", SCORES) == 50
    assert score("top5", SCORES) == 50
    assert score("top5", SCORES, labels=np.array([6, 3])) == 100
    assert score("agreement", SCORES, SCORES[:, ::-1]) == 0
    assert score("cosine", 2 * SCORES, SCORES) == pytest.approx(100)
    assert set(METRICS) == {"agreement", "cosine", "top1", "top5"}


def test_tokens_agree_one_by_one() -> None:
    tokens = np.stack([SCORES, SCORES])
    other = tokens.copy()
    other[0, 0] = SCORES[1]
    assert score("agreement", other, tokens) == 75


def test_a_function_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_measure.py").write_text(
        "def mean(outputs, inputs, labels):\n    return outputs['y'].mean() + inputs['x'].size + len(labels)\n"
        "def broken(outputs, inputs, labels):\n    return outputs['z']\n"
    )
    monkeypatch.chdir(tmp_path)
    assert score("my_measure:mean", SCORES) == pytest.approx(SCORES.mean() + 16)
    with pytest.raises(GraphoptError, match="my_measure:broken failed: KeyError"):
        score("my_measure:broken", SCORES)
    with pytest.raises(GraphoptError, match="no function 'median'"):
        find_metric("my_measure:median")


@pytest.mark.parametrize(
    ("name", "message"),
    [("top7", "choose one of"), ("no_such_module:f", "cannot import"), (":f", "cannot import")],
)
def test_unknown_ones(name: str, message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        find_metric(name)


def test_what_top1_needs() -> None:
    with pytest.raises(DataError, match="needs labels"):
        score("top1", SCORES, labels=None)
    with pytest.raises(DataError, match="shape"):
        score("top1", SCORES[0])
