"""Processes that build candidates side by side. One that dies takes its batch with it and is replaced."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Self

from graphopt.backends.targets import Target
from graphopt.backends.tune.building import Candidate, build
from graphopt.backends.tune.protocol import Built


class Builders:
    """A context manager over `count` processes, forked from this one so that they need not import TVM again."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(
        self, candidates: Sequence[Candidate], target: Target, flush_bytes: int, path: Path
    ) -> Future[Built]:
        """Build a library of candidates at `path`."""
        try:
            return self._pool.submit(build, candidates, target, flush_bytes, path)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(build, candidates, target, flush_bytes, path)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.count, multiprocessing.get_context("fork"), initializer=_ignore_interrupts
        )


def _ignore_interrupts() -> None:
    """Ctrl-C is for the search, which ends the builders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
