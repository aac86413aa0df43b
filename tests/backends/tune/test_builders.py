"""Builders that die, hang or fail: the libraries of the others arrive."""

import os
import signal
import time
from pathlib import Path

import pytest

from graphopt.backends.schedules import gemm
from graphopt.backends.targets import native
from graphopt.backends.tune import builders
from graphopt.backends.tune.builders import Builders, Job
from graphopt.backends.tune.building import Candidate, build
from graphopt.backends.tune.database import Database
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.protocol import Built
from graphopt.backends.tune.search import Search
from graphopt.backends.tune.tasks import Task
from graphopt.timing.tuning import Budget

WORKLOAD = gemm.workload(1, 16, 32, 8, True)
POISON = {"rows": 3, "vectors": 1}
FLUSH = 1 << 16


def misbehave(how: str) -> None:
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hangs":
        time.sleep(600)
    else:
        raise RuntimeError("no such schedule")


@pytest.fixture(params=["dies", "hangs", "fails"])
def poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One schedule does something to the process that builds it."""

    def build_or_not(candidates: list[Candidate], *rest: object) -> Built:
        if any(candidate.config == POISON for candidate in candidates):
            misbehave(request.param)
        return build(candidates, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builders, "build", build_or_not)
    monkeypatch.setattr(builders, "PATIENCE_S", 3.0)
    return request.param


def job(config: dict[str, int], path: Path) -> Job:
    return Job([Candidate(WORKLOAD, config)], native(), FLUSH, path)


@pytest.mark.parametrize("count", [1, 2])
def test_only_the_library_that_was_being_built_is_lost(poisoned: str, count: int, tmp_path: Path) -> None:
    configs = [{"rows": 1, "vectors": 1}, POISON, {"rows": 2, "vectors": 1}, {"rows": 4, "vectors": 1}]
    with Builders(count) as pool:
        for _ in range(2):
            built = pool.build([job(config, tmp_path / f"{i}.so") for i, config in enumerate(configs)])
            assert [library is None for library in built] == [False, True, False, False]
            assert built[3] is not None
            assert built[3].path == tmp_path / "3.so"


def test_a_search_records_the_failure_of_that_schedule_alone(poisoned: str, tmp_path: Path) -> None:
    with Builders(1) as pool:
        running = Search([Task(WORKLOAD, 1)], native(), Database(tmp_path / "db"), pool, FLUSH)
        running.states[0].queue = [{"rows": rows, "vectors": 1} for rows in (4, 3, 2)]
        running.states[0].rule = {"rows": 4, "vectors": 1}
        running.run(Budget(3), Here(1), lambda stage: None)
    times = Database(tmp_path / "db").times(native().name, WORKLOAD)
    assert {config["rows"]: spent is None for config, spent in times} == {4: False, 3: True, 2: False}


def test_builders_end_with_the_process_that_needs_them(tmp_path: Path) -> None:
    """Even when that is killed: their pipes close. They remove the folder that it leaves."""
    (tmp_path / "work").mkdir()
    child = os.fork()
    if child == 0:
        pool = Builders(2)
        pool.build([job({"rows": 1, "vectors": 1}, tmp_path / "work" / "0.so")])
        (tmp_path / "pids").write_text(" ".join(str(b._process.pid) for b in pool._idle))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "work").exists()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
