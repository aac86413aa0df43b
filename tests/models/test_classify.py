from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

import classify
import graphopt_runtime

MODEL = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"


class _Session:
    """ONNX Runtime in the place of a compiled model; it takes one image at a time, as the artifact does."""

    def __init__(self, path: str) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=value.name) for value in self._session.get_inputs()]

    def run(self, names: None, feeds: dict[str, Any]) -> list[np.ndarray]:
        assert feeds["image"].shape == (1, 1, 8, 8)
        return list(self._session.run(names, feeds))


def test_it_prints_a_digit_and_the_accuracy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(graphopt_runtime, "load", _Session)
    classify.main(str(MODEL))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].endswith("of 360 held-out digits right (100.0%)")


def test_drawing_maps_the_darkest_and_the_lightest() -> None:
    assert classify.drawing(np.array([[0, 16]], np.float32)) == "  @@"
