"""Tells a waiting user what is being done: a spinner on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Protocol, Self, TextIO

from rich.console import Console

FIRST_LINE_S = 2.0
"""What takes less needs no explanation."""

NEXT_LINE_S = 3.0


class Display(AbstractContextManager["Display"], Protocol):
    """Takes the name of each stage as it begins."""

    def __call__(self, stage: str) -> None: ...


class Silent(AbstractContextManager["Silent"]):
    """Shows nothing."""

    def __call__(self, stage: str) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Spinner(AbstractContextManager["Spinner"]):
    """The current stage on the last line of a terminal."""

    def __init__(self, console: Console) -> None:
        self._status = console.status("start")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, stage: str) -> None:
        self._status.update(stage.replace("[", r"\["))


class Lines(AbstractContextManager["Lines"]):
    """From time to time a line with the current stage and the seconds passed; a thread writes it, because a stage may be
    one long call."""

    def __init__(self, stream: TextIO, first_s: float = FIRST_LINE_S, next_s: float = NEXT_LINE_S) -> None:
        self._stream, self._first_s, self._next_s = stream, first_s, next_s
        self._stage = "start"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def __call__(self, stage: str) -> None:
        self._stage = stage

    def _write(self) -> None:
        started = time.monotonic()
        pause = self._first_s
        while not self._done.wait(pause):
            pause = self._next_s
            print(f"{time.monotonic() - started:5.0f} s  {self._stage}", file=self._stream, flush=True)


def display(quiet: bool = False) -> Display:
    """What suits standard error; `quiet` shows nothing."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Spinner(console) if console.is_terminal else Lines(sys.stderr)
