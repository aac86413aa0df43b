import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from graphopt.cli import report
from graphopt.errors import OutputError
from graphopt.model import statistics
from graphopt.rewriting.pipeline import Outcome, Report, Step
from graphopt.timing.bench import Benchmark, Measurement
from graphopt.timing.streams import Load
from tests.conftest import make_model

GOOD = Measurement((1.0, 2.0, 3.0), 12.0, 64.0, "float32", 1e-6, 2e-7)
BENCHMARK = Benchmark("<model>", 2, 3, {"ours": GOOD, "theirs": Measurement(error="no [wheel] <here>")})


def text(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_comparison_table_shows_numbers_and_errors() -> None:
    shown = text(report.comparison_table(BENCHMARK))
    assert "2.000" in shown
    assert "2e-07" in shown
    assert "no [wheel] <here>" in shown


def test_html_is_escaped_and_complete() -> None:
    page = report.comparison_html(BENCHMARK)
    assert "&lt;model&gt;" in page
    assert "no [wheel] &lt;here&gt;" in page
    assert "<model>" not in page
    assert "width: 100.0%" in page


def test_html_without_any_success() -> None:
    page = report.comparison_html(Benchmark("m", 1, 1, {"theirs": Measurement(error="x")}))
    assert 'class="bar"' not in page
    assert "<td>x</td>" in page


def test_markdown_escapes_pipes() -> None:
    assert report.markdown(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_pass_table_adds_rounds_up() -> None:
    rounds = [
        Step("fuse", Outcome(True, Counter(bn=2))),
        Step("fold", Outcome()),
        Step("fuse", Outcome(True, Counter(bn=1, relu=4))),
    ]
    shown = text(report.pass_table(Report(rounds)))
    assert "relu 4, bn 3" in shown
    assert shown.count("fuse") == 1


def test_refusals_are_shown_with_their_reason() -> None:
    outcome = Outcome(refused=Counter({("bn", "the value is used twice"): 3}))
    shown = text(report.refusal_table(Report([Step("fuse", outcome)])))
    assert "the value is used twice" in shown


def test_statistics_side_by_side() -> None:
    before = statistics(make_model("g (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }"))
    after = statistics(make_model("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    relu = next(
        line
        for line in text(report.statistics_table({"before": before, "after": after})).splitlines()
        if "Relu" in line
    )
    assert [cell.strip() for cell in relu.strip("│ ").split("│")] == ["Relu", "2", "1"]


def test_json_to_a_file(tmp_path: Path) -> None:
    report.write_json(BENCHMARK.to_json(), str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["backends"]["ours"]["median_ms"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_json_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    report.write_json({"a": [float("nan"), {"b": float("-inf")}]}, "-")
    assert json.loads(capsys.readouterr().out) == {"a": ["nan", {"b": "-inf"}]}


def test_tables_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(report.table(["a"], [["1"]]))
    captured: Any = capsys.readouterr()
    assert "1" in captured.out
    assert captured.err == ""


def test_empty_tables_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(report.table(["a"], []))
    assert capsys.readouterr().out == ""


def test_width_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    report.show(report.table(["a"], [["word " * 100]]))
    assert max(map(len, capsys.readouterr().out.splitlines())) == report.PLAIN_WIDTH


def test_load_table() -> None:
    shown = text(report.load_table(Load("m", 2, 1, (1.0, 3.0), 0.5)))
    cells = [cell.strip() for cell in shown.splitlines()[-2].strip("│ ").split("│")]
    assert cells == ["2", "1", "2", "4", "2.000", "1.200", "2.800"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        report.write_json({}, str(tmp_path / "missing" / "out.json"))
