"""Tuning for a GPU, on an emulated one: what candidates that fault, hang or are wrong cost, and what becomes of what was measured."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt import api
from graphopt.backends.cuda import compiler, nvcc
from graphopt.backends.cuda.extents import Extents
from graphopt.backends.kernels.conv_rows import Geometry
from graphopt.backends.kernels.geometry import Axis
from graphopt.backends.schedules import tensor_convolution, tensor_product
from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import TARGETS
from graphopt.backends.tune import gpu_runner, measuring, search
from graphopt.backends.tune.builders import Builders
from graphopt.backends.tune.building import Candidate, build
from graphopt.backends.tune.database import Database, Trial, versions
from graphopt.backends.tune.gpu_runner import agree, largest, noise
from graphopt.backends.tune.measuring import Measurer
from graphopt.backends.tune.places import Here
from graphopt.backends.tune.protocol import Answer
from graphopt.backends.tune.search import Search
from graphopt.backends.tune.tasks import Task, extract
from graphopt.errors import TargetError, TuningError
from graphopt.timing.tuning import Budget, Tuning
from tests.backends.cuda import emulation
from tests.cli.conftest import invoke
from tests.conftest import make_model

TARGET = TARGETS["cuda:sm_90"]
PRODUCT = tensor_product.workload(Extents(1, 20, 32, 40), 2, along_depth=True)
AXIS = Axis(5, 5, 3, 1, 1, 1)
TASKS = [
    PRODUCT,
    tensor_product.workload(Extents(2, 20, 64, 40), 2, along_depth=False),
    tensor_product.workload(Extents(1, 20, 32, 160), 1, along_depth=True),
    tensor_product.workload(Extents(1, 20, 32, 40), 4, along_depth=True),
    tensor_convolution.workload(Geometry(1, 1, 8, 16, (AXIS, AXIS)), 2, by_rows=True),
    tensor_convolution.workload(Geometry(1, 1, 8, 13, (AXIS,)), 2, by_rows=True),
    tensor_convolution.workload(Geometry(1, 2, 16, 16, (AXIS,)), 1, by_rows=False),
]
BAD_COLUMNS = 64
"""Columns of the tile that the tests break."""

FAULTS = {
    "faults": "__builtin_trap(),",
    "is refused": "emulated_thread.x % 32 ? emulated_barrier(0) : emulated_barrier(1),",
    "is wrong": "true ? (void)0 :",
    "hangs": "({ for (volatile int i = 0; i < 1; ) ; }),",
}
"""What stands before the instruction that multiplies."""

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason="no compiler for the emulated GPU")


@pytest.fixture
def emulated() -> Iterator[None]:
    with emulation.emulated_gpu():
        yield


def schedule(columns: int, parts: int = 1) -> Config:
    """The first schedule of the product that has so many columns and parts."""
    found = (config for _, config in tensor_product.candidates(PRODUCT, TARGET.core))
    return next(
        c
        for c in found
        if (c["rows"], c["columns"], c["parts"], c["warp_columns"]) == (64, columns, parts, 0)
    )


def measure(configs: Sequence[Config], path: Path) -> list[Answer | None]:
    """Next to the first one."""
    built = build([Candidate(PRODUCT, config) for config in configs], TARGET, 0, path)
    with Measurer(1) as measurer:
        return list(measurer.measure(built, [(i + 1, 1) for i in range(len(configs))]))


def tuned(tasks: Sequence[Workload], path: Path, trials: int) -> Database:
    with Builders(1) as builders:
        running = Search([Task(task, 1) for task in tasks], TARGET, Database(path), builders, 0)
        running.run(Budget(trials), Here(1), lambda stage: None)
    return Database(path)


@pytest.mark.parametrize("workload", TASKS, ids=str)
def test_candidates_of_every_kind_are_measured(
    emulated: None, workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BATCH", 3)
    times = tuned([workload], tmp_path / "db", 3).times(TARGET.name, workload)
    rule = FAMILIES[workload.family].candidates(workload, TARGET.core)[0][1]
    assert len(times) == 3
    assert dict(rule) in [dict(config) for config, _ in times]
    assert all(spent is not None and spent > 0 for _, spent in times)


@pytest.mark.parametrize("how", FAULTS)
def test_a_bad_candidate_costs_a_worker_at_most(
    emulated: None, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that faults, that the driver refuses, that computes something else, or that does not end; the others are measured."""
    monkeypatch.setattr(measuring, "NEXT_ANSWER_S", 2.0)
    name = rf"graphopt_group{BAD_COLUMNS}_f16\("

    def images(sources: Sequence[str], arch: str) -> list[bytes]:
        return emulation.images([re.sub(name, FAULTS[how] + r" \g<0>", source) for source in sources], arch)

    monkeypatch.setattr(compiler, "compile_cubins", images)
    monkeypatch.setattr(measuring, "Child", counting := _counting(measuring.Child))
    answers = measure([schedule(32), schedule(BAD_COLUMNS), schedule(96)], tmp_path / "c.so")
    assert [answer is None for answer in answers] == [False, True, False]
    assert counting.started == (1 if how == "is wrong" else 2)


def test_a_gpu_that_is_lost_ends_the_search(
    emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed before is recorded, and nothing else."""
    monkeypatch.setattr(search, "BATCH", 6)
    monkeypatch.setattr(measuring, "MOST_DEATHS", 3)
    monkeypatch.setenv("GRAPHOPT_EMULATED_MEMORY", "4096")
    with pytest.raises(TuningError, match=r"3 candidates failed in a row.*exit code 1"):
        tuned([PRODUCT], tmp_path / "db", 6)
    times = Database(tmp_path / "db").times(TARGET.name, PRODUCT)
    assert [spent for _, spent in times] == [None, None]


class _Counted:
    started: int


def _counting(make: Callable[[str], measuring.Child]) -> type[_Counted]:
    class Counting(_Counted):
        started = 0

        def __new__(cls, module: str) -> measuring.Child:  # type: ignore[misc]
            cls.started += 1
            return make(module)

    return Counting


def test_parts_are_measured_with_what_adds_them_up(emulated: None, tmp_path: Path) -> None:
    workload = tensor_product.workload(Extents(1, 20, 32, 384), 2, along_depth=True)
    config = {**schedule(32), "parts": 3}
    program = FAMILIES[workload.family].standalone(workload, config, TARGET.core).program
    assert len(program.kernels()) == 2
    built = build([Candidate(workload, {**config, "parts": p}) for p in (1, 3)], TARGET, 0, tmp_path / "c.so")
    with Measurer(1) as measurer:
        assert None not in list(measurer.measure(built, [(1, 1), (2, 1)]))


def test_failures_are_recorded_and_what_was_measured_before_an_interrupt_stays(
    emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BATCH", 2)
    monkeypatch.setattr(search, "ROUNDS", 1)
    steps: list[str] = []

    def interrupt(stage: str) -> None:
        steps.append(stage)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with Builders(1) as builders:
        running = Search([Task(PRODUCT, 1)], TARGET, Database(tmp_path / "db"), builders, 0)
        running.states[0].queue.insert(1, {**schedule(32), "rows": 1 << 20})
        with pytest.raises(KeyboardInterrupt):
            running.run(Budget(20), Here(1), interrupt)
    times = Database(tmp_path / "db").times(TARGET.name, PRODUCT)
    assert [spent is None for _, spent in times] == [False, True]


MODEL = "agraph (float16[1,20,40] x) => (float16[1,20,32] y) { y = MatMul(x, w) }"


def weights() -> np.ndarray:
    return np.random.default_rng(0).random((40, 32)).astype(np.float16)


def test_compile_uses_what_a_database_chooses(emulated: None, tmp_path: Path) -> None:
    model, path = make_model(MODEL, w=weights()), tmp_path / "db.tune"
    [task] = extract([model], TARGET).tasks
    assert task.workload == PRODUCT
    bad = {**schedule(32), "rows": 100}
    for config, microseconds in ((schedule(64), 2.0), (bad, 1.0)):
        Database(path).add([Trial(PRODUCT, TARGET.name, config, microseconds, versions())])
    made = {}
    for name, tuning in (("rules", None), ("tuned", Tuning(path, required=True))):
        done = api.build(model, tmp_path / f"{name}.gopt", TARGET.name, tuning=tuning)
        made[name] = graphopt.load(done.path)
        assert str(PRODUCT) in [layer.get("workload") for layer in done.layers]
    x = np.random.default_rng(1).random((1, 20, 40)).astype(np.float16)
    expected = x.astype(np.float32) @ weights().astype(np.float32)
    for compiled in made.values():
        np.testing.assert_allclose(compiled(x)[0], expected, rtol=2e-3)
    texts = [Path(compiled._path).read_bytes() for compiled in made.values()]
    assert texts[0] != texts[1]


def test_tune_then_compile(emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line, in float16, by the precision of both."""
    monkeypatch.setattr(nvcc, "require_nvcc", lambda: "nvcc")
    text = "agraph (float[1,20,40] x) => (float[1,20,32] y) { y = MatMul(x, w) }"
    path, db = tmp_path / "m.onnx", tmp_path / "m.tune"
    graphopt.model.save(make_model(text, w=weights().astype(np.float32)), path)
    how = ("--target", TARGET.name, "--precision", "fp16")
    invoke("tune", path, *how, "--trials", 2, "--db", db)
    assert [json.loads(line)["us"] > 0 for line in db.read_text().splitlines()[1:]] == [True, True]
    invoke("compile", path, *how, "--tune-db", db, "--require-tuned", "-o", tmp_path / "m.gopt")
    with pytest.raises(TuningError, match="size=4"):
        api.build(path, tmp_path / "n.gopt", TARGET.name, precision="tf32", tuning=Tuning(db, required=True))


def test_without_a_gpu_nothing_is_tuned(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    graphopt.model.save(make_model(MODEL, w=weights()), path)
    with emulation.emulated_gpu(memory=0):
        done = invoke("tune", path, "--target", TARGET.name, code=2)
        assert (
            "cannot tune for cuda:sm_90 here: it needs a GPU of sm_90; there is no NVIDIA GPU here"
            in done.stderr
        )
    with emulation.emulated_gpu():
        done = invoke("tune", path, "--target", "cuda:sm_80", code=2)
        assert "it needs a GPU of sm_80; the one here is sm_90" in done.stderr
        done = invoke("tune", path, "--target", TARGET.name, "--device", "board:1", code=2)
        assert "on the machine that has the GPU" in done.stderr
    assert not path.with_suffix(".tune").exists()


def test_without_the_compiler_nothing_is_tuned(
    emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: None)
    with pytest.raises(TargetError, match="nvcc is not installed"):
        api.tune(make_model(MODEL, w=weights()), Tuning(tmp_path / "db", Budget(1)), TARGET.name)


@pytest.mark.parametrize("dtype", ["float16", "uint16", "float32"])
def test_roundings_agree_and_nothing_else_does(dtype: str) -> None:
    values = noise(1 << 12, 0).view(dtype)
    numbers = gpu_runner._floats(values)
    assert np.abs(numbers).max() < 2
    size = largest(values)
    assert agree(values, values.copy(), size)
    assert agree(
        values ^ 1 if dtype == "uint16" else np.nextafter(values, values.dtype.type(0)), values, size
    )
    wrong = values.copy()
    wrong[7] = -wrong[7] if dtype != "uint16" else wrong[7] ^ 0x8000
    assert not agree(wrong, values, size)
    unwritten = values.copy()
    unwritten[7:8].view(np.uint8)[:] = gpu_runner.UNWRITTEN
    assert not agree(unwritten, values, size)
    assert not agree(unwritten, unwritten, largest(unwritten))


def test_bytes_agree_where_they_are_equal() -> None:
    values = noise(100, 0).view(np.int8)
    assert agree(values, values.copy(), largest(values))
    assert not agree(values ^ 1, values, largest(values))
