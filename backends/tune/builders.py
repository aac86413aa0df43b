"""Processes that build candidates side by side. One that dies or hangs loses what it was building, and is replaced."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol, Self

from graphopt.backends.targets import Target
from graphopt.backends.tune.building import Candidate, build
from graphopt.backends.tune.protocol import Built

PATIENCE_S = 60.0
"""How long a library may take."""

FORK = multiprocessing.get_context("fork")
"""Forked processes need not import TVM again."""


@dataclass(frozen=True)
class Job:
    """A library of candidates, to be written to `path`."""

    candidates: Sequence[Candidate]
    target: Target
    flush_bytes: int
    path: Path


class Pool(Protocol):
    """Builds `count` libraries at a time, wherever it does."""

    count: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def build(self, jobs: Sequence[Job]) -> list[Built | None]:
        """A library for each job, or None where it could not be built."""


class _Builder:
    """One process, and the job that it works on: its number and when its time is up."""

    def __init__(self) -> None:
        self.pipe, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(self.pipe, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.number, self.deadline = -1, 0.0

    def start(self, number: int, job: Job) -> None:
        self.number, self.deadline = number, time.monotonic() + PATIENCE_S
        with suppress(OSError):  # one that has died says so when asked for its answer
            self.pipe.send(job)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


class Builders:
    """A context manager over `count` processes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle = [_Builder() for _ in range(count)]
        self._busy: list[_Builder] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for builder in (*self._idle, *self._busy):
            builder.end()

    def build(self, jobs: Sequence[Job]) -> list[Built | None]:
        """A library for each job, or None where it could not be built."""
        found: list[Built | None] = [None] * len(jobs)
        waiting = deque(enumerate(jobs))
        while waiting or self._busy:
            while waiting and self._idle:
                builder = self._idle.pop()
                builder.start(*waiting.popleft())
                self._busy.append(builder)
            for builder in self._answering():
                found[builder.number] = self._receive(builder)
        return found

    def _answering(self) -> list[_Builder]:
        """Builders that are done, that died, or whose time is up; waits for the first of them."""
        nearest = min(builder.deadline for builder in self._busy)
        ready = wait([builder.pipe for builder in self._busy], max(nearest - time.monotonic(), 0.0))
        now = time.monotonic()
        return [builder for builder in self._busy if builder.pipe in ready or builder.deadline <= now]

    def _receive(self, builder: _Builder) -> Built | None:
        self._busy.remove(builder)
        try:
            built: Built | None = builder.pipe.recv() if builder.pipe.poll() else None
        except (EOFError, OSError):
            built = None
        if built is None:
            builder.end()
            builder = _Builder()
        self._idle.append(builder)
        return built


def _serve(parents: Connection, pipe: Connection) -> None:
    """Builds until it is ended, or until the search dies, whose folder it then removes. Ctrl-C is for the search."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folders: set[Path] = set()
    with suppress(EOFError, OSError):
        while True:
            job: Job = pipe.recv()
            folders.add(job.path.parent)
            pipe.send(build(job.candidates, job.target, job.flush_bytes, job.path))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
