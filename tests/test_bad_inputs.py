"""Every bad input of benchmarks/bad_cases.py: one message, the right exit code, no traceback, nothing left behind."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from bad_cases import CASES, Case
from bad_inputs import NOT_OURS, Result, faults, files, try_case
from graphopt.cli.main import main


def needs_process(case: Case) -> bool:
    return bool(case.environment or case.largest_file or case.disk or case.interrupt)


INSIDE = [case for case in CASES if not needs_process(case)]
OUTSIDE = [case for case in CASES if needs_process(case)]


@pytest.mark.parametrize("case", INSIDE, ids=lambda case: case.name)
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [str(argument) for argument in case.prepare(tmp_path)]
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    done = CliRunner().invoke(main, arguments)
    left = sorted(files(tmp_path) - before - set(case.makes))
    result = Result(done.exit_code, done.output, left, 0.0)
    assert faults(case, result) == [], done.output


@pytest.mark.parametrize("case", OUTSIDE, ids=lambda case: case.name)
def test_bad_surroundings(case: Case, tmp_path: Path) -> None:
    try:
        result = try_case(case, tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("only root can make a small file system")
    assert result.faults == [], result.message


def test_a_fault_is_found() -> None:
    case = Case("any", lambda folder: [], "helpful")
    result = Result(1, "Traceback: a bug of graphopt", ["half.gopt"], 0.0)
    assert len(faults(case, result)) == 5


def test_what_is_not_ours_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / NOT_OURS[0]).touch()
    (tmp_path / "tmp" / "ours").touch()
    assert files(tmp_path) == {"tmp", "tmp/ours"}
