"""Students that learn: nearer to the teacher than before, the same way each time, and what they must not do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from graphopt.accuracy.evaluation import Judge
from graphopt.errors import DataError, GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.training.distillation import Checkpoint, Goal, Plan, distil, paired, split
from graphopt.training.distillation.batches import Batch
from graphopt.training.distillation.loop import Learner
from graphopt.training.distillation.stages import Stage
from tests.conftest import make_model
from tests.training.distillation.harness import digits, disturbed, floats, learn, line, shipped

RNG = np.random.default_rng(3)


def rows(count: int = 64) -> Dataset:
    return Dataset({"x": RNG.standard_normal((count, 4)).astype(np.float32)})


def knowing() -> object:
    return line(w=RNG.standard_normal((4, 3)).astype(np.float32))


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_a_student_comes_nearer_to_its_teacher(name: str) -> None:
    teacher = shipped(name)
    student = disturbed(teacher)
    judge = Judge(teacher, digits(1000), 1000)
    before = judge.judge(student)
    done = learn(student, teacher, digits(), epochs=8)
    after = judge.judge(student)
    assert after.sqnr_db > before.sqnr_db + 3
    assert done.rounds[done.best].held_out < done.rounds[0].held_out / 2
    assert done.rounds[done.best].agreement is not None


def test_the_same_arguments_give_the_same_weights() -> None:
    teacher = shipped("digits_cnn")
    students = [disturbed(teacher) for _ in range(3)]
    for student, seed in zip(students, (1, 1, 2), strict=True):
        learn(student, teacher, digits(), epochs=1, seed=seed)
    first, second, other = (floats(student) for student in students)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert any(not np.array_equal(array, other[name]) for name, array in first.items())


def test_labels_count_too() -> None:
    teacher = shipped("digits_mlp")
    student = disturbed(teacher, 1.5)
    data = digits(400)
    judge = Judge(teacher, data)
    before = judge.judge(student).top1
    learn(student, teacher, data, Goal(labels=True, alpha=1.0), epochs=20, rate=3e-3)
    after = judge.judge(student).top1
    assert before is not None
    assert after is not None
    assert after[1] > before[1] + 0.1


def test_numbers_are_learned_by_their_distance() -> None:
    teacher, student = knowing(), line()
    done = learn(student, teacher, rows(), Goal("regression"), epochs=300, rate=0.1)
    assert [term.kind for term in done.terms] == ["regression"]
    np.testing.assert_allclose(floats(student)["w"], floats(teacher)["w"], atol=0.02)


def test_the_best_round_is_kept_even_if_it_is_the_first() -> None:
    teacher = knowing()
    student = teacher.clone()
    done = learn(student, teacher, rows(), Goal("regression"), epochs=3, rate=1.0)
    assert done.best == 0
    np.testing.assert_array_equal(floats(student)["w"], floats(teacher)["w"])


def test_patience_ends_it() -> None:
    teacher = knowing()
    done = learn(teacher.clone(), teacher, rows(), Goal("regression"), epochs=1000, rate=1.0, patience=2)
    assert len(done.rounds) == 3


def test_time_ends_it() -> None:
    done = learn(line(), knowing(), rows(), Goal("regression"), epochs=None, minutes=0.02)
    assert 1 < done.rounds[-1].seconds < 30


def test_weights_stay_near_their_start_where_that_is_asked_for() -> None:
    teacher = knowing()
    moved = []
    for stay in (0.0, 20.0):
        student = line()
        learn(student, teacher, rows(), Goal("regression"), epochs=100, rate=0.05, stay=stay)
        moved.append(np.abs(floats(student)["w"]).max())
    assert moved[1] < moved[0] / 2


def test_decay_is_of_matrices() -> None:
    data = Dataset({"x": np.zeros((64, 4), np.float32)})
    student = line(w=np.ones((4, 3), np.float32), b=np.ones(3, np.float32))
    teacher = line(b=np.full(3, 2, np.float32))
    learn(student, teacher, data, Goal("regression"), epochs=100, rate=0.02, decay=0.1)
    assert floats(student)["w"].max() < 0.92
    assert floats(student)["b"].min() > 1.5


def test_frozen_statistics() -> None:
    teacher = shipped("digits_cnn")
    names = [name for name in floats(teacher) if "running" in name]
    for freeze in (True, False):
        student = disturbed(teacher)
        learn(student, teacher, digits(), epochs=1, freeze_statistics=freeze)
        same = [np.array_equal(floats(student)[name], floats(teacher)[name]) for name in names]
        assert all(same) if freeze else not any(same)


@pytest.mark.parametrize("sizes", [(4, "N"), ("N", 4), (4, 6)])
def test_models_that_take_a_fixed_number_of_samples(sizes: tuple[object, object]) -> None:
    teacher, student = (
        make_model(
            f"line (float[{size},4] x) => (float[{size},3] y) {{ y = MatMul(x, w) }}",
            w=RNG.standard_normal((4, 3)).astype(np.float32),
        )
        for size in sizes
    )
    data = Dataset({"x": RNG.standard_normal((100, 4)).astype(np.float32)})
    done = learn(student, teacher, data, Goal("regression"), epochs=3, rate=0.05)
    assert done.rounds[-1].held_out < done.rounds[0].held_out


def test_a_checkpoint_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning is broken off in the middle of a round, after some that were saved."""
    monkeypatch.setattr("graphopt.training.distillation.schedule.FEWEST_STEPS", 4)
    monkeypatch.setattr("graphopt.training.distillation.schedule.MOST_STEPS", 4)
    teacher = shipped("digits_cnn")
    parts = split(digits(160), 1, 0)
    goal, plan = Goal(), Plan(epochs=3, batch=32)

    def run(checkpoint: Checkpoint | None) -> dict[str, np.ndarray]:
        student = disturbed(teacher)
        distil(student, paired(teacher, student), parts, goal, plan, checkpoint=checkpoint)
        return floats(student)

    whole = run(None)
    step, killed = Learner._step, iter([False] * 9 + [True])

    def breaking(self: Learner, *arguments: object) -> float:
        if next(killed):
            raise KeyboardInterrupt
        return step(self, *arguments)  # type: ignore[arg-type]

    checkpoint = Checkpoint(tmp_path / "c", "s")
    monkeypatch.setattr(Learner, "_step", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint)
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 8
    monkeypatch.setattr(Learner, "_step", step)
    for name, array in run(checkpoint).items():
        np.testing.assert_array_equal(array, whole[name])


def test_a_loss_that_is_no_number_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In data that is bad from the start, and after steps that went too far, when the last state is kept."""
    teacher = knowing()
    data = rows()
    data.columns["x"][:] = np.inf  # type: ignore[index]
    with pytest.raises(GraphoptError, match=r"the loss is nan after 0 step\(s\)"):
        learn(line(), teacher, data, Goal("regression"))
    checkpoint, parts, student = Checkpoint(tmp_path / "c", "s"), split(rows(), 1, 0), line()
    compare, healthy = Learner._compare, iter(range(80))

    def breaking(self: Learner, batch: Batch, stage: Stage) -> tuple[torch.Tensor, float | None]:
        loss, agreement = compare(self, batch, stage)
        return (loss, agreement) if next(healthy, None) is not None else (loss * np.inf, agreement)

    monkeypatch.setattr(Learner, "_compare", breaking)
    with pytest.raises(GraphoptError, match=r"a lower --rate may help.*the last good state is kept in .*c"):
        distil(
            student,
            paired(teacher, student),
            parts,
            Goal("regression"),
            Plan(epochs=500),
            checkpoint=checkpoint,
        )
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 50
    assert all(bool(tensor.isfinite().all()) for tensor in found["state"].values())


@pytest.mark.parametrize(
    ("goal", "plan", "message"),
    [
        (Goal(labels=True), {}, "--labels needs labels"),
        (Goal(), {"augment": ("flip",)}, "one input of images"),
    ],
)
def test_wishes_that_do_not_fit(goal: Goal, plan: dict[str, object], message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        learn(line(), knowing(), rows(), goal, **plan)


def test_mixed_images_have_no_labels() -> None:
    teacher = shipped("digits_cnn")
    with pytest.raises(GraphoptError, match="mixed images have no labels"):
        learn(teacher.clone(), teacher, digits(), Goal(labels=True), augment=("mix",))


def test_a_student_without_weights() -> None:
    model = make_model("agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    with pytest.raises(GraphoptError, match="no weights"):
        learn(model.clone(), model, rows())


def test_too_few_samples() -> None:
    with pytest.raises(DataError, match="8 or more samples are needed to learn from, there are 7"):
        learn(line(), knowing(), rows(7))


def test_the_setting_of_torch_is_restored() -> None:
    learn(line(), knowing(), rows(), Goal("regression"), epochs=1)
    assert not torch.are_deterministic_algorithms_enabled()
