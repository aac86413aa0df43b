"""`graphopt compress`."""

from pathlib import Path
from typing import Any

import pytest

from graphopt.compression import compressing
from graphopt.compression.plans import Plan
from graphopt.errors import GraphoptError
from tests.cli.conftest import invoke, invoke_json
from tests.cli.test_quantize import MODEL, calib
from tests.compression.test_compressing import Stopwatch, stopwatch

__all__ = ["calib", "stopwatch"]


def test_the_best_artifact_is_written_and_all_is_shown(
    stopwatch: Stopwatch, calib: Path, tmp_path: Path
) -> None:
    output, page = tmp_path / "best.gopt", tmp_path / "page.html"
    stopwatch.latencies = {"60 % of multiply-adds, int8": 1.0}
    options = ["--calib", calib, "--max-drop", 1.5, "--html", page]
    done = invoke("compress", MODEL, *options, "-o", output)
    assert f"{output}: 60 % of multiply-adds, int8: " in done.stdout
    assert "0.50 of the latency before; agreement 100.000 -> " in done.stdout
    html = page.read_text()
    for plan in ("as it was", "60 % of multiply-adds", "int8", "60 % of multiply-adds, int8"):
        assert f"<td>{plan}</td>" in html
        assert plan in done.stdout
    assert html.count("<svg") == 2
    assert html.count('class="chosen"') == 2
    assert (tmp_path / "best.gopt.search").exists()


def test_json_has_all_points(
    stopwatch: Stopwatch, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(compressing.WAYS, "size", (Plan(clusters=16),))
    output = tmp_path / "best.gopt"
    options = ["--calib", calib, "--eval", calib, "--metric", "top1", "--max-drop", 5]
    content = invoke_json("compress", MODEL, *options, "--objective", "size", "-o", output)
    assert content["metric"] == "top1"
    assert content["before"] == pytest.approx(98.96, abs=0.01)
    assert content["chosen"]["bytes"] == output.stat().st_size
    compiled = [point for point in content["points"] if point["bytes"] is not None]
    assert content["chosen"]["bytes"] == min(point["bytes"] for point in compiled)
    assert set(content["front"]) <= {point["plan"] for point in compiled}
    again = invoke_json("compress", MODEL, *options, "--objective", "size", "-o", output)
    assert again == content


def test_a_journal_may_have_a_name_and_is_of_one_search(
    stopwatch: Stopwatch, calib: Path, tmp_path: Path
) -> None:
    journal, options = tmp_path / "journal", ["--max-drop", 1.5, "--journal", tmp_path / "journal"]
    invoke("compress", MODEL, "--calib", calib, *options, "-o", tmp_path / "a.gopt")
    assert not (tmp_path / "a.gopt.search").exists()
    content = journal.read_bytes()
    other = ["--calib", calib, "--samples", 50, *options, "-o", tmp_path / "b.gopt"]
    assert "another search" in invoke("compress", MODEL, *other, code=2).stderr
    assert journal.read_bytes() == content
    assert not (tmp_path / "b.gopt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "what may be lost as --max-drop"),
        (["--max-drop", "nan"], "a drop of nan"),
        (["--max-drop", 1, "--metric", "beauty"], "unknown metric"),
        (["--max-drop", 1, "--recover", 0], "give a number of minutes above 0"),
        (["--max-drop", 1, "--target", "z80"], "unknown target 'z80'"),
        (["--max-drop", 1, "--dim", "nowhere=1"], "nowhere"),
        (["--max-drop", 1, "--html", "none/page.html"], "no folder"),
        (["--max-drop", 1, "--journal", "none/journal"], "no folder"),
    ],
)
def test_requests_that_make_no_sense(
    options: list[Any], message: str, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("compress", MODEL, "--calib", calib, *options, "-o", "never.gopt", code=2)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == [calib]


def test_data_to_learn_from_is_needed(tmp_path: Path) -> None:
    done = invoke("compress", MODEL, "--max-drop", 1, "-o", tmp_path / "never.gopt", code=2)
    assert "give --calib DATA to learn from" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_fails_writes_no_artifact(
    stopwatch: Stopwatch, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise GraphoptError("lost at least")

    monkeypatch.setattr(compressing, "_best", fail)
    options = ["--calib", calib, "--max-drop", 1.5, "--html", tmp_path / "page.html"]
    done = invoke("compress", MODEL, *options, "-o", tmp_path / "never.gopt", code=2)
    assert "lost at least" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calib.npz", "never.gopt.search"]
