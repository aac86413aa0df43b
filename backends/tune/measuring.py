"""Measures libraries of candidates in a process of its own, and goes on with a new one after a crash or a hang."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from graphopt.backends.tune.protocol import Answer, Built, Request
from graphopt.errors import TuningError
from graphopt.timing.child import Child, ChildDied

MODULE = "graphopt.backends.tune.runner"

FIRST_ANSWER_S, NEXT_ANSWER_S = 60.0, 20.0
"""How long the first answer, before which the process starts, and any other one may take."""

MOST_DEATHS = 40
"""Processes in a row that give no answer, after which it is not the candidates: a GPU is lost, or its memory is taken."""


class Measurer:
    """One process at a time; a context manager that ends it."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._child: Child | None = None
        self._deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def measure(self, built: Built, pairs: list[tuple[int, int]]) -> Iterator[Answer | None]:
        """Times of every pair of variants, one after the other; None for one that crashed, did not end, or computed something else.

        Raises TuningError where nothing can be measured any more."""
        done = 0
        while done < len(pairs):
            try:
                for answer in self._answers(Request(built, pairs[done:], self._threads)):
                    self._deaths = 0
                    yield answer
                    done += 1
            except ChildDied as error:
                self._stop()
                self._count_death(error)
                yield None
                done += 1

    def _answers(self, request: Request) -> Iterator[Answer | None]:
        patience = NEXT_ANSWER_S
        if self._child is None:
            self._child, patience = Child(MODULE), FIRST_ANSWER_S
        self._child.send(request)
        for _ in request.pairs:
            yield self._child.receive(patience)
            patience = NEXT_ANSWER_S

    def _count_death(self, error: ChildDied) -> None:
        self._deaths += 1
        if self._deaths == MOST_DEATHS:
            raise TuningError(
                f"nothing can be measured: {MOST_DEATHS} candidates failed in a row; the last one: {error}"
            )

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None
