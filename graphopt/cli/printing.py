"""What commands print: results as tables or JSON, notices, progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from graphopt.cli.progress import Display
    from graphopt.cli.report import Table


def publish(json_file: str | None, content: Mapping[str, Any], *tables: Table, line: str = "") -> None:
    """JSON where it is asked for; tables and a closing line unless JSON has taken standard output."""
    from graphopt.cli import report

    if json_file is not None:
        report.write_json(content, json_file)
    if json_file != "-":
        report.show(*tables)
        if line:
            click.echo(line)


def announce(notices: Sequence[str]) -> None:
    """What was decided without being asked."""
    for notice in notices:
        click.echo(notice, err=True)


def progress_display(json_file: str | None) -> Display:
    """Tells a waiting user what is done; nothing where standard output takes JSON."""
    from graphopt.cli.progress import display

    return display(quiet=json_file == "-")
