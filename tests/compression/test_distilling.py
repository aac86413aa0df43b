"""Distillation from files and models: what is compared, what is kept, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.api import build
from graphopt.compression.distilling import _wishes, distill, recover
from graphopt.compression.quantizing import quantize
from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.model import load
from tests.conftest import make_model

pytest.importorskip("torch")
from tests.training.distillation.harness import digits, disturbed, floats, shipped


def test_a_student_is_written_and_compared(tmp_path: Path) -> None:
    teacher = shipped("digits_mlp")
    student = disturbed(teacher)
    before, output = floats(student.clone()), tmp_path / "s.onnx"
    done = distill(
        student,
        teacher,
        digits(),
        output,
        evaluate_on=digits(600),
        checkpoint=tmp_path / "c",
        epochs=4,
        metric="cosine",
    )
    assert done.before is not None
    assert done.after is not None
    assert done.after.samples == 600
    assert done.after.sqnr_db > done.before.sqnr_db
    assert done.after.metric is not None
    assert done.warnings == []
    assert done.to_json()["compared"][0]["kind"] == "classes"
    np.testing.assert_array_equal(floats(load(output))["w0"], floats(done.model)["w0"])
    np.testing.assert_array_equal(floats(student)["w0"], before["w0"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.onnx"]


def test_held_out_samples_judge_where_there_are_no_others() -> None:
    teacher = shipped("digits_mlp")
    done = distill(disturbed(teacher), teacher, digits(320), epochs=1)
    assert done.after is not None
    assert done.after.samples == 32


def test_labels_alone() -> None:
    student = disturbed(shipped("digits_mlp"), 1.5)
    done = distill(student, None, digits(), labels=True, epochs=20, rate=3e-3)
    assert done.learned.terms == []
    assert done.after is not None
    assert done.after.top1 is not None
    assert done.after.top1[1] > done.after.top1[0]


@pytest.mark.parametrize(
    ("options", "alone", "rate"),
    [({}, False, 3e-4), ({"labels": True}, True, 1e-3), ({"labels": True, "rate": 0.5}, True, 0.5)],
)
def test_students_of_a_teacher_learn_slowly(options: dict[str, Any], alone: bool, rate: float) -> None:
    assert _wishes({"epochs": 1, **options}, alone)[1].rate == rate


def test_what_gains_nothing_is_remarked_upon() -> None:
    teacher = shipped("digits_mlp")
    done = distill(teacher, teacher, digits(), epochs=1, rate=1.0)
    assert done.warnings == ["nothing was gained on held-out samples: the student is as it came"]


@pytest.mark.parametrize("scheme", ["int8", "int4-weights"])
def test_it_compiles_to_the_same_kernels(scheme: str, tmp_path: Path) -> None:
    teacher = shipped("digits_mlp")
    student = quantize(disturbed(teacher, 0.1), digits(100), scheme=scheme, techniques=()).model
    done = distill(student, teacher, digits(), epochs=12)
    assert done.learned.best > 0
    built = [
        build(model, tmp_path / f"{number}.gopt", "native")
        for number, model in enumerate((student, done.model))
    ]
    assert built[0].layers == built[1].layers
    assert built[0].bytes == built[1].bytes
    assert all(each.verdict.passed for each in built)


def test_recover_takes_models_and_minutes() -> None:
    teacher = shipped("digits_mlp")
    done = recover(disturbed(teacher), teacher, digits(), 0.05, seed=3)
    assert done.after is None
    assert done.learned.best > 0
    assert done.to_json()["after"] is None


def test_a_checkpoint_belongs_to_what_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long and how boldly may change on the way, but nothing else."""
    from graphopt.training.distillation.loop import Learner

    teacher, original = shipped("digits_mlp"), Learner._save
    wishes: dict[str, Any] = {"data": digits(), "checkpoint": tmp_path / "c", "epochs": 20}

    def breaking(self: Learner) -> None:
        original(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "_save", breaking)
    with pytest.raises(KeyboardInterrupt):
        distill(disturbed(teacher), teacher, **wishes)
    monkeypatch.setattr(Learner, "_save", original)
    for changed in ({"seed": 1}, {"batch": 32}, {"temperature": 3.0}, {"data": digits(300)}):
        with pytest.raises(DataError, match="of other learning"):
            distill(disturbed(teacher), teacher, **(wishes | changed))
    done = distill(disturbed(teacher), teacher, **(wishes | {"epochs": 21, "rate": 1e-4}))
    assert done.learned.epochs == 21


def narrow(samples: int) -> Dataset:
    return Dataset({"x": np.zeros((samples, 4), np.float32)})


def line(columns: int, domain: str = "") -> ir.Model:
    """A product, and another node behind it."""
    text = f"agraph (float[N,4] x) => (float[N,{columns}] y) {{ h = MatMul(x, w) y = Identity(h) }}"
    model = make_model(text, w=np.ones((4, columns), np.float32))
    model.graph.node(1).domain = domain
    model.opset_imports[domain] = model.opset_imports.get(domain, 1)
    return model


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": narrow(0)}, "8 or more samples are needed to learn from, there are 0"),
        ({"teacher": None}, "without --teacher there are only --labels"),
        ({"metric": "guess"}, "unknown metric"),
        ({"kind": "guess"}, "unknown loss"),
        ({"minutes": 1.0}, "either a number of epochs or minutes"),
        ({"teacher": line(2)}, r"output 'y' is float \[N, 3\], the teacher's 'y' is float \[N, 2\]"),
        ({"student": line(3, "local")}, "local::Identity"),
        ({"features": {"h": "q"}}, "nothing inside the teacher is called 'q'"),
    ],
)
def test_requests_that_make_no_sense(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    wishes = {"student": line(3), "teacher": line(3), "data": narrow(40), "epochs": 1} | changed
    with pytest.raises(GraphoptError, match=message):
        distill(output=tmp_path / "out.onnx", **wishes)
    assert not (tmp_path / "out.onnx").exists()
