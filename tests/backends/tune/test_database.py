"""The tuning database: what it keeps, what it refuses, and how it survives being cut off."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from graphopt.backends.schedules.workload import Workload
from graphopt.backends.tune.database import HEADER, Database, Trial, versions
from graphopt.errors import TuningError

GEMM = Workload.of("gemm", {"batch": 1, "m": 2, "n": 3, "k": 4, "packed": 1})


def trial(rows: int, microseconds: float | None, target: str = "x", made_by: str | None = None) -> Trial:
    return Trial(GEMM, target, {"rows": rows}, microseconds, made_by or versions())


def test_schedules_come_back_fastest_first(tmp_path: Path) -> None:
    path = tmp_path / "db"
    Database(path).add([trial(1, 5.0), trial(2, None), trial(3, 3.0), trial(1, 2.0), trial(9, 1.0, "other")])
    database = Database(path)
    assert database.times("x", GEMM) == [({"rows": 1}, 2.0), ({"rows": 3}, 3.0), ({"rows": 2}, None)]
    assert database.fastest("x") == {GEMM: [{"rows": 1}, {"rows": 3}]}
    assert database.fastest("nobody") == {}


def test_schedules_measured_in_a_model_go_first_and_their_latest_time_counts(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    alone = [trial(1, 1.0), trial(2, 2.0), trial(3, 3.0)]
    inside = [replace(trial(rows, spent), in_model=True) for rows, spent in ((3, 1.0), (2, 5.0), (3, 6.0))]
    database.add(alone + inside)
    again = Database(tmp_path / "db")
    assert again.times_in_model("x", GEMM) == [({"rows": 2}, 5.0), ({"rows": 3}, 6.0)]
    assert again.times("x", GEMM) == [({"rows": 1}, 1.0), ({"rows": 2}, 2.0), ({"rows": 3}, 3.0)]
    assert again.fastest("x")[GEMM][:3] == [{"rows": 2}, {"rows": 3}, {"rows": 1}]


def test_other_versions_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "db"
    Database(path).add([trial(1, 5.0, made_by="graphopt 0 tvm 0")])
    assert Database(path).fastest("x") == {}


def test_files_merge_by_concatenation(tmp_path: Path) -> None:
    for name, microseconds in (("a", 5.0), ("b", 3.0)):
        Database(tmp_path / name).add([trial(1, microseconds)])
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    assert Database(tmp_path / "c").times("x", GEMM) == [({"rows": 1}, 3.0)]


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_a_file_cut_off_anywhere_loses_its_last_trial_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "db"
    Database(path).add([trial(1, 5.0), trial(2, 4.0)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    complete = whole[:-cut].count(b"\n") - 1
    database = Database(path)
    assert len(database.times("x", GEMM)) == complete
    database.add([trial(3, 1.0)])
    assert len(Database(path).times("x", GEMM)) == complete + 1


def test_writers_do_not_lose_each_others_trials(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "db"), Database(tmp_path / "db")
    for rows in range(3):
        first.add([trial(2 * rows, 1.0)])
        second.add([trial(2 * rows + 1, 1.0)])
    assert len(Database(tmp_path / "db").times("x", GEMM)) == 6


def test_an_empty_file_is_a_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(HEADER.encode()[:5])
    Database(path).add([trial(3, 1.0)])
    assert len(Database(path).times("x", GEMM)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("something else\n", "not a tuning database"),
        (f"{HEADER}\nnonsense\n", "line 2 is no trial"),
        (f'{HEADER}\n{{"workload": 3}}\n', "line 2 is no trial"),
    ],
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "db"
    path.write_text(content)
    with pytest.raises(TuningError, match=message):
        Database(path)


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="cannot read"):
        Database(tmp_path)


WRITER = """
import sys
from pathlib import Path
from tests.backends.tune.test_database import Database, trial
database = Database(Path(sys.argv[1]))
for number in range(10**9):
    database.add([trial(number, 1.0)])
    print(number, flush=True)
"""


def test_killing_the_writer_loses_nothing_that_was_added(tmp_path: Path) -> None:
    path = tmp_path / "db"
    known = 0
    for pause in (0.0, 0.01, 0.03):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.kill()
            told = max((int(line) for line in process.stdout.read().split("\n")[:-1]), default=0)
        found = len(Database(path).times("x", GEMM))
        assert found >= max(told + 1, known)
        known = found
