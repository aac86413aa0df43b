"""The search end to end on small tasks, and what crashes and hangs of candidates do to it: nothing."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.window import Window
from graphopt.backends.schedules import byte_conv, conv, gemm, sparse
from graphopt.backends.schedules.workload import Workload
from graphopt.backends.targets import native
from graphopt.backends.tune import measuring
from graphopt.backends.tune.builders import Builders
from graphopt.backends.tune.building import Candidate, build
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.measuring import Measurer
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.protocol import Built
from graphopt.backends.tune.search import BATCH, Search
from graphopt.backends.tune.tasks import Task
from graphopt.timing.tuning import Budget

TASKS = [Task(gemm.workload(1, 16, 32, 8, True), 3), Task(gemm.workload(2, 5, 48, 8, False), 1)]

CRASHING = """
#include <stdlib.h>
#include <unistd.h>
void *graphopt_create(const void *weights, int threads) { return (void *)&graphopt_create; }
int graphopt_run(void *model, int variant, const void *const *in, void *const *out) { return 0; }
double graphopt_time(void *model, int variant, const void *const *in, void *const *out, int repeats) {
    if (variant == 2) abort();
    if (variant == 3) for (;;) pause();
    return 1e-6 * (variant + 1);
}
void graphopt_set_threads(void *model, int threads) {}
void graphopt_set_passive(void *model, int passive) {}
void graphopt_destroy(void *model) {}
const char *graphopt_error_string(int error) { return ""; }
"""


def search(tasks: Sequence[Task], path: Path, builders: Builders) -> Search:
    return Search(tasks, native(), Database(path), builders, 1 << 16)


def test_every_task_gets_a_schedule_and_a_second_search_measures_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with Builders(1) as builders:
        first = search(TASKS, path, builders)
        first.run(Budget(1000), Here(1), lambda stage: None)
        assert first.trials > BATCH
        assert all(state.best is not None and state.rule_us is not None for state in first.states)
        found = Database(path).fastest(native().name)
        assert found.keys() == {task.workload for task in TASKS}
        again = search(TASKS, path, builders)
        assert [state.best for state in again.states] == [state.best for state in first.states]
        measured = {str(config) for config in found[TASKS[0].workload]}
        assert not measured & {str(config) for config in again.states[0].queue}


@pytest.mark.skipif(native().core.dot is None, reason="no instruction for bytes here")
def test_bytes_are_timed_against_floats(tmp_path: Path) -> None:
    shape = ConvShape(1, 1, 16, 32, Window((9, 9), (7, 7), (3, 3), (1, 1), (0, 0), (1, 1)))
    task = Task(byte_conv.workload(shape, "uint8", False, native().lanes), 1)
    with Builders(1) as builders:
        search([task], tmp_path / "db", builders).run(Budget(6), Here(1), lambda stage: None)
    measured = [config for config, _ in Database(tmp_path / "db").times(native().name, task.workload)]
    assert {byte_conv.is_float(config) for config in measured} == {False, True}


def test_skipping_zeros_is_timed_against_multiplying_them(tmp_path: Path) -> None:
    shape = ConvShape(1, 1, 16, 32, Window((9, 9), (7, 7), (3, 3), (1, 1), (0, 0), (1, 1)))
    tasks = [
        Task(conv.workload(shape, False, 0.3), 1),
        Task(gemm.workload(1, 5, 48, 40, True, sparse.fact(0.3)), 1),
    ]
    with Builders(1) as builders:
        search(tasks, tmp_path / "db", builders).run(Budget(60), Here(1), lambda stage: None)
    for task in tasks:
        times = Database(tmp_path / "db").times(native().name, task.workload)
        assert {sparse.is_sparse(config) for config, spent in times if spent is not None} == {False, True}


def test_the_budget_holds(tmp_path: Path) -> None:
    with Builders(1) as builders:
        few = search(TASKS, tmp_path / "a", builders)
        few.run(Budget(BATCH + 3), Here(1), lambda stage: None)
        assert few.trials == BATCH + 3
        none = search(TASKS, tmp_path / "b", builders)
        none.run(Budget(1000, seconds=0.0), Here(1), lambda stage: None)
        assert none.trials == 0


def test_a_candidate_that_cannot_be_built_fails_alone(tmp_path: Path) -> None:
    """An unknown family breaks the builder's call; the other task is tuned."""
    with Builders(1) as builders:
        running = search(TASKS, tmp_path / "db", builders)
        broken = running.states[1]
        broken.queue = [{"rows": 0, "vectors": 0}]
        broken.rule = {"rows": 0, "vectors": 0}
        running.run(Budget(60), Here(1), lambda stage: None)
        assert broken.best is None
        assert running.states[0].best is not None


def test_crashes_and_hangs_are_answered_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "NEXT_ANSWER_S", 1.0)
    monkeypatch.setattr(measuring, "FIRST_ANSWER_S", 30.0)
    source, library = tmp_path / "crash.c", tmp_path / "crash.so"
    source.write_text(CRASHING)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    built = Built(library, [[64]] * 5, [[64]] * 5, 64, [1.0] * 4)
    with Measurer(1) as measurer:
        answers = list(measurer.measure(built, [(1, 1), (2, 1), (1, 1), (4, 1)]))
    assert [answer is None for answer in answers] == [False, True, False, False]
    assert answers[3] is not None
    assert answers[3].candidate == pytest.approx(5.0)
    monkeypatch.setattr(measuring, "FIRST_ANSWER_S", 5.0)
    with Measurer(1) as measurer:
        assert list(measurer.measure(built, [(3, 1)])) == [None]


def test_a_library_of_candidates_measures(tmp_path: Path) -> None:
    workload: Workload = TASKS[0].workload
    candidates = [Candidate(workload, config) for _, config in gemm.candidates(workload, native().core)[:3]]
    built = build(candidates, native(), 1 << 16, tmp_path / "c.so")
    with Measurer(2) as measurer:
        answers = list(measurer.measure(built, [(i + 1, 1) for i in range(3)]))
    assert all(answer is not None and 0 < answer.candidate < 1e6 for answer in answers)
