from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.accuracy.comparison import Comparison
from graphopt.accuracy.verify import (
    ReferenceFailed,
    Verdict,
    coarsest_tolerance,
    compare,
    reference,
    self_difference,
    verify,
    worst,
)
from graphopt.arrays import Feeds
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import infer_shapes
from tests.conftest import make_model

TEXT = "g (float[2, 3] x) => (float[2, 3] y, int64[2, 3] z) { y = Relu(x) z = Cast<to = 7>(x) }"
CUSTOM = "g (float[2] x) => (float[2] y) { y = graphopt.Unheard(x) }"


def scaled(model: ir.Model, factor: float, only_positive_seed: bool = False) -> Any:
    run = reference(model)

    def changed(feeds: Feeds) -> Mapping[str, Any]:
        outputs = dict(run(feeds))
        return {**outputs, "y": outputs["y"] * np.float32(factor)}

    return changed


def test_the_reference_agrees_with_itself() -> None:
    model = make_model(TEXT)
    verdict = verify(
        model, reference(model, optimised=True), [random_feeds(model, seed) for seed in range(3)]
    )
    assert verdict.passed
    assert verdict.max_rel_err == 0
    assert [output.name for output in verdict.outputs] == ["y", "z"]


def test_a_wrong_output_is_named() -> None:
    model = make_model(TEXT)
    verdict = verify(model, scaled(model, 1.01), [random_feeds(model)])
    assert not verdict.passed
    assert "output 'y' (float32): max_rel_err 0.01 over the tolerance" in str(verdict)
    assert "'z'" not in str(verdict)


def test_the_worst_of_several_feeds_counts() -> None:
    model = make_model(TEXT)
    good, bad = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    run = scaled(model, 1.5)
    assert verify(model, run, [{"x": good}]).passed
    verdict = verify(model, run, [{"x": good}, {"x": bad}, {"x": good}])
    assert verdict.max_rel_err == pytest.approx(0.5)


def test_what_onnx_runtime_cannot_run_is_not_verified() -> None:
    model = make_model(CUSTOM)
    verdict = verify(model, lambda feeds: {}, [{"x": np.zeros(2, np.float32)}])
    assert not verdict.verified
    assert not verdict.passed
    assert str(verdict).startswith("not verified: ONNX Runtime: ")
    assert verdict.to_json()["verified"] is False


def test_without_feeds_nothing_is_verified() -> None:
    model = make_model(TEXT)
    assert verify(model, reference(model), []).not_verified == "there are no inputs to compare with"


def test_errors_of_the_runner_are_passed_on() -> None:
    model = make_model(TEXT)

    def broken(feeds: Feeds) -> Mapping[str, Any]:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        verify(model, broken, [random_feeds(model)])


def test_wrong_feeds_are_the_references_failure() -> None:
    with pytest.raises(ReferenceFailed, match="ONNX Runtime"):
        reference(make_model(TEXT))({"x": np.zeros(5, np.float32)})


def test_self_difference_ignores_what_is_not_finite() -> None:
    one, two = {"a": np.float32([1, 2])}, {"a": np.float32([1, 2.2])}
    assert self_difference(one, two) == pytest.approx(0.1, rel=1e-5)
    assert self_difference(one, {"a": np.float32([1, np.nan])}) == 0


def test_worst_is_taken_output_by_output() -> None:
    def verdict(a: float, b: float, own: float) -> Verdict:
        return Verdict((Comparison("a", "float32", a, a, 1.0), Comparison("b", "float32", b, b, 1.0)), own)

    joined = worst([verdict(0.1, 0.4, 0.0), verdict(0.3, 0.2, 0.01)])
    assert [output.max_rel_err for output in joined.outputs] == [0.3, 0.4]
    assert joined.self_difference == 0.01


def test_a_missing_output_fails() -> None:
    assert not compare({"y": np.zeros(1, np.float32)}, {}).passed


def test_json_has_plain_types() -> None:
    model = make_model(TEXT)
    content = verify(model, reference(model), [random_feeds(model)]).to_json()
    assert content == {
        "verified": True,
        "passed": True,
        "where": "",
        "max_abs_err": 0.0,
        "max_rel_err": 0.0,
        "max_steps": None,
        "self_difference": 0.0,
        "outputs": {"y": 0.0, "z": 0.0},
    }


def test_weights_in_their_own_file_are_found(tmp_path: Any) -> None:
    model = make_model("g (float[2] x) => (float[2] y) { y = Add(x, w) }", 18, w=np.float32([1, 2]))
    ir.save(model, tmp_path / "m.onnx", external_data="weights.bin")
    run = reference(ir.load(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(run({"x": np.zeros(2, np.float32)})["y"], [1, 2])


def test_strings_among_the_weights_are_no_obstacle() -> None:
    text = 'g (float[1] x) => (float[1] y) { s = Constant<value = string[2] {"a", "b"}>() y = Relu(x) }'
    model = make_model(text)
    assert verify(model, reference(model), [random_feeds(model)]).passed


def test_half_precision_inside_sets_the_tolerance() -> None:
    half = make_model(
        "g (float[2] x) => (float[2] y) { a = Cast<to = 10>(x) b = Exp(a) y = Cast<to = 1>(b) }"
    )
    infer_shapes(half)
    assert coarsest_tolerance(half) == 4e-3
    feeds = {"x": np.float32([0.1, 2.0])}
    assert verify(half, scaled(half, 1.002), [feeds]).passed
    assert not verify(half, scaled(half, 1.01), [feeds]).passed
    assert coarsest_tolerance(make_model(TEXT)) == 0
