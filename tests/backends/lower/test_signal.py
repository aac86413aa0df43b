"""Fourier transforms and windows against ONNX Runtime."""

import numpy as np
import pytest

from graphopt.backends.kernels.core import AVX512
from graphopt.backends.lower.graph import lower_model
from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import Nodes, fixed
from tests.conftest import make_model

RNG = np.random.default_rng(9)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_dft() -> None:
    nodes = Nodes(opset=20)
    nodes.add("DFT", floats(2, 17, 1))
    nodes.add("DFT", floats(2, 16, 2), None, fixed(np.array(1)), inverse=1)
    nodes.add("DFT", floats(3, 20, 5, 1), None, fixed(np.array(1)), onesided=1)
    nodes.add("DFT", floats(2, 9, 1), fixed(np.array(13)))
    nodes.add("DFT", floats(2, 9, 2), fixed(np.array(4)))
    nodes.check()


def test_dft_axis_attribute() -> None:
    nodes = Nodes(opset=17)
    nodes.add("DFT", floats(2, 9, 4, 1))
    nodes.add("DFT", floats(2, 9, 4, 1), axis=2, onesided=1)
    nodes.check()


def test_stft() -> None:
    nodes = Nodes(opset=17)
    window = fixed(np.hanning(16).astype(np.float32))
    nodes.add("STFT", floats(2, 100, 1), fixed(np.array(8)), window, onesided=1)
    nodes.add("STFT", floats(1, 64, 1), fixed(np.array(5)), None, fixed(np.array(12)), onesided=0)
    nodes.check()


def test_inverse_of_onesided_is_refused() -> None:
    model = make_model(
        "agraph (float[1, 5, 2] x) => (float[1, 8, 1] y) { y = DFT<inverse = 1, onesided = 1>(x) }"
    )
    with pytest.raises(UnsupportedError, match="one-sided"):
        lower_model(model, AVX512)


def test_a_wrong_declared_shape_is_refused() -> None:
    model = make_model("agraph (float[1, 8, 1] x) => (float[1, 8, 2] y) { y = DFT<onesided = 1>(x) }")
    with pytest.raises(UnsupportedError, match="8 bins instead of 5"):
        lower_model(model, AVX512)


def test_huge_transforms_are_refused() -> None:
    model = make_model("agraph (float[1, 9001, 1] x) => (float[1, 9001, 2] y) { y = DFT(x) }")
    with pytest.raises(UnsupportedError, match="length 9001"):
        lower_model(model, AVX512)


def test_windows() -> None:
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        for periodic in (0, 1):
            nodes = Nodes(opset=17)
            nodes.add(op, fixed(np.array(10)), periodic=periodic)
            nodes.check()


def test_mel_weights() -> None:
    nodes = Nodes(opset=17)
    numbers = (np.array(8), np.array(64), np.array(8192), np.float32(0), np.float32(4096))
    nodes.add("MelWeightMatrix", *(fixed(n) for n in numbers))
    nodes.check()
