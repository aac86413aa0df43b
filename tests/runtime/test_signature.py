"""Feeds and lent outputs that fit no variant."""

from typing import Any

import numpy as np
import pytest

from graphopt_runtime import CompiledModel, InputError, NodeArg


def feed(size: int = 64) -> np.ndarray:
    return np.arange(size, dtype=np.float32)


def test_other_shapes_are_refused_with_the_list_of_variants(model: CompiledModel) -> None:
    with pytest.raises(InputError, match=r"(?s)shapes x\[65\]; it is compiled for:\n  x\[64\]\n  x\[128\]"):
        model(feed(65))
    with pytest.raises(InputError, match=r"x\[8, 8\]"):
        model(feed().reshape(8, 8))


def test_another_dtype_is_refused_with_advice(model: CompiledModel) -> None:
    with pytest.raises(
        InputError, match=r"'x' has dtype float64, the model takes float32.*astype\('float32'\)"
    ):
        model(feed().astype(np.float64))
    with pytest.raises(InputError, match="'x' cannot be made an array"):
        model([[1.0], [1.0, 2.0]])
    with pytest.raises(InputError, match="dtype >f4"):
        model(feed().astype(">f4"))


@pytest.mark.parametrize(
    ("arrays", "named", "message"),
    [
        ((), {}, "0 inputs given, the model takes 1: 'x'"),
        ((feed(), feed()), {}, "2 inputs given"),
        ((feed(),), {"x": feed()}, "by position or by name"),
        ((), {"q": feed()}, "'x' is missing"),
        (({},), {}, "'x' is missing"),
        ((), {"x": feed(), "q": feed()}, "no input 'q'; the inputs are 'x'"),
    ],
)
def test_wrong_feeds_are_refused(
    model: CompiledModel, arrays: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model(*arrays, **named)


X = feed()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([np.empty(64, np.float32)], "1 arrays, the model has 2 outputs"),
        ({"y": np.empty(64, np.float32)}, "names 'y', the outputs are 'y', 'z'"),
        ([np.empty(64, np.float32), [0.0] * 64], "'z' is a list"),
        ([np.empty(64, np.float32), np.empty(64)], r"'z' is float64\[64\], the result is z: float32\[64\]"),
        ([np.empty(65, np.float32), np.empty(64, np.float32)], r"'y' is float32\[65\]"),
        ([np.empty(128, np.float32)[::2], np.empty(64, np.float32)], "C-contiguous"),
        ([np.frombuffer(bytes(256), np.float32), np.empty(64, np.float32)], "writeable"),
        ([X, np.empty(64, np.float32)], "'y' shares memory"),
        ([np.empty(64, np.float32)] * 2, "'z' shares memory"),
    ],
)
def test_unfit_lent_arrays_are_refused(model: CompiledModel, out: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(X, out=out)


def test_the_interface_of_onnx_runtime_describes_inputs_and_outputs(model: CompiledModel) -> None:
    assert model.get_inputs() == [NodeArg("x", ["64|128"], "tensor(float)")]
    assert [arg.name for arg in model.get_outputs()] == ["y", "z"]
