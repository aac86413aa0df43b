"""Libraries from Ray's workers: they measure here; failures cost one library, hosts that cannot build end the search."""

import importlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphopt.backends.codegen.toolchain import runtime_objects
from graphopt.backends.schedules import gemm
from graphopt.backends.targets import native
from graphopt.backends.tune import builders, ray_builders
from graphopt.backends.tune.builders import Job
from graphopt.backends.tune.building import Candidate
from graphopt.backends.tune.database import Database, versions
from graphopt.backends.tune.measuring import Measurer
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.ray_builders import RayBuilders, build_here, portable
from graphopt.backends.tune.search import Search
from graphopt.backends.tune.tasks import Task
from graphopt.errors import TargetError, TuningError
from graphopt.timing.tuning import Budget

pytest.importorskip("ray")

WORKLOAD = gemm.workload(1, 16, 32, 8, True)
FLUSH = 1 << 16


class Unpickled:
    """Becomes the result of a call where it arrives."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def job(path: Path, candidates: Any = None) -> Job:
    configs = ({"rows": rows, "vectors": 1} for rows in (1, 2, 3))
    return Job(candidates or [Candidate(WORKLOAD, config) for config in configs], native(), FLUSH, path)


@pytest.fixture(scope="module")
def pool() -> Iterator[RayBuilders]:
    with RayBuilders("local") as pool:
        yield pool


def test_libraries_arrive_and_measure(pool: RayBuilders, tmp_path: Path) -> None:
    assert pool.count == len(os.sched_getaffinity(0))
    built = pool.build([job(tmp_path / f"{i}.so") for i in range(3)])
    assert [library.path for library in built if library is not None] == [
        tmp_path / f"{i}.so" for i in range(3)
    ]
    assert built[2] is not None
    with Measurer(1) as measurer:
        answers = list(measurer.measure(built[2], [(i + 1, 1) for i in range(3)]))
    assert all(answer is not None and 0 < answer.candidate < 1e6 for answer in answers)


def test_a_search_takes_them(pool: RayBuilders, tmp_path: Path) -> None:
    running = Search([Task(WORKLOAD, 1)], native(), Database(tmp_path / "db"), pool, FLUSH)
    running.run(Budget(10), Here(1), lambda stage: None)
    assert running.trials == 10
    assert running.states[0].best is not None


@pytest.mark.parametrize(
    "candidates",
    [
        pytest.param([Candidate(WORKLOAD, {"rows": 0, "vectors": 0})], id="that cannot be built"),
        pytest.param(map(os._exit, [1]), id="that end the process that builds them"),
        pytest.param(Unpickled(os._exit, (1,)), id="that end the worker"),
    ],
)
def test_only_the_library_of_bad_candidates_is_lost(
    pool: RayBuilders, candidates: Any, tmp_path: Path
) -> None:
    jobs = [job(tmp_path / "0.so"), job(tmp_path / "1.so", candidates), job(tmp_path / "2.so")]
    assert [library is None for library in pool.build(jobs)] == [False, True, False]
    assert not (tmp_path / "1.so").exists()


def test_a_hang_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "PATIENCE_S", 1.0)
    assert build_here(pickle.dumps(job(tmp_path / "0.so", map(time.sleep, [600])))) is None


def test_another_version_is_refused(
    pool: RayBuilders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_builders, "versions", lambda: "graphopt 0 tvm 0")
    with pytest.raises(TuningError) as caught:
        pool.build([job(tmp_path / "0.so")])
    for part in (os.uname().nodename, versions(), "graphopt 0 tvm 0"):
        assert part in str(caught.value)


def test_a_host_that_lacks_a_module_is_refused(pool: RayBuilders, tmp_path: Path) -> None:
    lacking = Unpickled(importlib.import_module, ("nowhere",))
    with pytest.raises(TuningError, match=r"cannot build: .*: No module named 'nowhere'"):
        pool.build([job(tmp_path / "0.so", lacking)])


def test_a_host_without_graphopt_says_so() -> None:
    import ray.cloudpickle

    code = (
        "import pickle, sys; sys.modules['graphopt'] = None\n"
        "pickle.load(sys.stdin.buffer)(b'', 'graphopt 0 tvm 0')"
    )
    packed = ray.cloudpickle.dumps(portable())
    done = subprocess.run([sys.executable, "-c", code], check=False, input=packed, capture_output=True)
    assert f"RuntimeError: {os.uname().nodename}: No module named 'graphopt.backends'" in done.stderr.decode()


def test_a_host_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime_objects.cache_clear()
    with pytest.raises(TargetError, match="no C compiler"):
        build_here(pickle.dumps(job(tmp_path / "0.so")))


def test_a_cluster_that_builds_nothing(
    pool: RayBuilders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_builders, "SILENCE_S", 0.0)
    with pytest.raises(TuningError, match="local built nothing for 0 s"):
        pool.build([job(tmp_path / "0.so")])


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TuningError, match=r"pip install graphopt\[ray\]"):
        RayBuilders("local")


@pytest.mark.parametrize("address", ["", "127.0.0.1:6379", "http://127.0.0.1:1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(TuningError, match="is no address of Ray"):
        RayBuilders(address)


def fake_ray(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    """Ray with other functions."""
    import ray

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(exceptions=ray.exceptions, **functions))


def nothing(*_: Any, **__: Any) -> None: ...


def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("timeout")

    fake_ray(monkeypatch, init=fail)
    with pytest.raises(TuningError, match="at ray://somewhere:1: timeout"):
        RayBuilders("ray://somewhere:1")


def test_a_cluster_without_cpus_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []
    fake_ray(monkeypatch, init=nothing, cluster_resources=dict, shutdown=lambda: left.append(True))
    with pytest.raises(TuningError, match="auto has no CPUs"):
        RayBuilders("auto")
    assert left


def test_a_cluster_that_goes_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("closed")

    remote = SimpleNamespace(remote=nothing)
    functions = {"init": nothing, "cluster_resources": lambda: {"CPU": 1.0}, "shutdown": nothing, "get": fail}
    fake_ray(monkeypatch, remote=lambda **_: lambda function: remote, **functions)
    with RayBuilders("auto") as pool, pytest.raises(TuningError, match="auto is gone"):
        pool.build([job(tmp_path / "0.so")])


def test_standard_output_stays_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resources: dict[str, Any] = {"cluster_resources": lambda: {"CPU": 1.0}, "remote": lambda **_: nothing}
    fake_ray(monkeypatch, init=nothing, shutdown=lambda: print("a worker died"), **resources)
    with RayBuilders("auto"):
        print("a host died")
    print("the result")
    assert capsys.readouterr() == ("the result\n", "a host died\na worker died\n")
