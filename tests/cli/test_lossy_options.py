"""Options that commands share which give up accuracy."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from graphopt.cli.lossy_options import (
    EXCLUDING,
    JUDGING,
    LEARNING,
    SHARED,
    gain_table,
    given,
    listed,
    max_drop,
    shared_settings,
    techniques,
)
from graphopt.compression.techniques import Gain


def parse(*arguments: str) -> dict[str, Any]:
    """What a command with all options takes of some arguments, and which of `SHARED` were given."""
    found: dict[str, Any] = {}

    @click.command()
    @listed(*SHARED, max_drop("What may be lost."))
    def command(**chosen: Any) -> None:
        found.update(chosen=chosen, given=given(SHARED))

    result = CliRunner().invoke(command, list(arguments))
    found["output"] = result.output
    return found


def test_help_lists_options_in_order() -> None:
    text = parse("--help")["output"]
    names = [
        "--calib",
        "--preprocess",
        "--samples",
        "--workers",
        "--exclude",
        "--eval",
        "--metric",
        "--max-drop",
    ]
    assert sorted(names, key=lambda name: text.index(f"{name} ")) == names


def test_only_what_is_typed_is_given() -> None:
    assert parse()["given"] == []
    assert parse("--max-drop", "1")["given"] == []
    assert parse("--samples", "300", "--exclude", "Conv")["given"] == ["--samples", "--exclude"]


def test_settings_have_the_names_of_parameters(tmp_path: Path) -> None:
    settings = shared_settings(
        parse("--eval", str(tmp_path), "--exclude", "a", "--exclude", "b", "--metric", "top5")["chosen"]
    )
    assert settings == {
        "calib": None,
        "preprocess": None,
        "samples": 300,
        "workers": 1,
        "exclude": ("a", "b"),
        "metric": "top5",
        "evaluate_on": tmp_path,
    }


@pytest.mark.parametrize("option", ["--samples", "--workers", "--max-drop"])
def test_numbers_that_make_no_sense(option: str) -> None:
    assert "Invalid value" in parse(option, "-1")["output"]


def test_data_has_to_exist(tmp_path: Path) -> None:
    assert "does not exist" in parse("--calib", str(tmp_path / "none"))["output"]


@pytest.mark.parametrize(
    ("text", "expected"), [("none", ()), ("correct", ("correct",)), ("a, b,c", ("a", "b", "c"))]
)
def test_techniques_are_a_list_with_commas(text: str, expected: tuple[str, ...]) -> None:
    assert techniques(text) == expected


def test_shared_options_are_those_of_all_parts() -> None:
    assert set(SHARED) == {*LEARNING, *EXCLUDING, *JUDGING}


def test_gains_as_a_table() -> None:
    found = gain_table([Gain("correct", 10.0, 12.5), Gain("equalize", 12.5, 12.0)])
    assert [list(column.cells) for column in found.columns] == [
        ["correct", "equalize"],
        ["10.00", "12.50"],
        ["12.50", "12.00"],
        ["yes", "no"],
    ]
