import io
import time

import pytest
from rich.console import Console

from graphopt.cli import progress


def test_nothing_is_said_about_what_is_quick() -> None:
    stream = io.StringIO()
    with progress.Lines(stream) as lines:
        lines("compile")
    assert stream.getvalue() == ""


def test_lines_name_the_stage_even_while_it_is_busy() -> None:
    stream = io.StringIO()
    with progress.Lines(stream, first_s=0.01, next_s=0.05) as lines:
        lines("generate 40 kernels")
        time.sleep(0.12)
    said = stream.getvalue().splitlines()
    assert 1 <= len(said) <= 3
    assert all("generate 40 kernels" in line for line in said)


def test_a_spinner_on_a_terminal() -> None:
    stream = io.StringIO()
    with progress.Spinner(Console(file=stream, force_terminal=True)) as spinner:
        spinner("fuse [conv]")
        time.sleep(0.2)
    assert "fuse [conv]" in stream.getvalue()


@pytest.mark.parametrize(("quiet", "kind"), [(True, progress.Silent), (False, progress.Lines)])
def test_display(quiet: bool, kind: type) -> None:
    with progress.display(quiet) as shown:
        assert isinstance(shown, kind)
        shown("stage")
