"""The runner of the ONNX backend suite tells passed, refused, wrong and crashed apart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import conformance


@pytest.fixture(scope="module")
def relu() -> Any:
    (case,) = conformance.load_cases(["relu$"])
    return case


def test_a_right_result_passes(relu: Any) -> None:
    assert conformance.run_case(relu) == conformance.Result("test_relu", "Relu", "passed")


def test_a_wrong_result_is_found(relu: Any) -> None:
    inputs, outputs = relu.data_sets[0]
    wrong = replace(relu, data_sets=[(inputs, [outputs[0] + 1])])
    result = conformance.run_case(wrong)
    assert result.status == "wrong"
    assert "y: [" in result.reason


def test_another_type_is_wrong(relu: Any) -> None:
    inputs, outputs = relu.data_sets[0]
    wrong = replace(relu, data_sets=[(inputs, [outputs[0].astype(np.float64)])])
    assert "float32[3, 4, 5] where float64[3, 4, 5] is expected" in conformance.run_case(wrong).reason


def test_what_has_no_kernel_is_refused() -> None:
    (case,) = conformance.load_cases(["bernoulli$"])
    result = conformance.run_case(case)
    assert result.status == "refused"
    assert "random" in result.reason


def test_an_exception_is_a_crash(relu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt import onnx_backend

    def fail(*arguments: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(onnx_backend, "run_model", fail)
    assert conformance.run_case(relu).status == "crashed"


def test_sequences_are_skipped() -> None:
    (case,) = conformance.load_cases(["sequence_map_identity_1_sequence$"])
    assert conformance.run_case(case).status == "skipped"


def test_the_exit_code_tells_of_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conformance.main(["relu$"]) == 0
    assert "Relu" in capsys.readouterr().out
    monkeypatch.setattr(
        conformance, "run_case", lambda case: conformance.Result(case.name, "Relu", "wrong", "1 != 2")
    )
    assert conformance.main(["relu$"]) == 1
    assert "wrong test_relu: 1 != 2" in capsys.readouterr().out
