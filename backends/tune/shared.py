"""Shares candidates out over boards of one kind, each of which times one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from graphopt.backends.tune.protocol import Answer, Built
from graphopt.backends.tune.remote import RemoteMeasurer
from graphopt.errors import DeviceError


@dataclass(frozen=True)
class Share:
    """Answers of a board, in the order of what it was given; fewer than that where it was lost to an error."""

    answers: Sequence[Answer | None]
    error: DeviceError | None = None


class SharedMeasurer:
    """Takes the place of `measuring.Measurer`. What a board that is lost leaves is measured by the others."""

    def __init__(self, boards: Sequence[RemoteMeasurer]) -> None:
        self._boards = list(boards)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, built: Built, pairs: list[tuple[int, int]]) -> Iterator[Answer | None]:
        """Times of every pair of variants in their order, all of them first; None for one that crashed. Raises DeviceError where
        all boards are lost."""
        answers: dict[int, Answer | None] = {}
        while missing := [number for number in range(len(pairs)) if number not in answers]:
            answers.update(self._round(built, pairs, missing))
        yield from (answers[number] for number in range(len(pairs)))

    def _round(
        self, built: Built, pairs: Sequence[tuple[int, int]], missing: Sequence[int]
    ) -> dict[int, Answer | None]:
        """The answers that the boards have to the missing pairs, of which each gets an equal part."""
        count = len(self._boards)
        parts = [missing[first::count] for first in range(count)]
        with ThreadPoolExecutor(count) as pool:
            jobs = [
                pool.submit(_measure, board, built, [pairs[number] for number in part])
                for board, part in zip(self._boards, parts, strict=True)
            ]
            shares = [job.result() for job in jobs]
        found = zip(self._boards, shares, strict=True)
        self._boards = [board for board, share in found if share.error is None]
        if not self._boards:
            raise next(share.error for share in shares if share.error is not None)
        return {
            number: answer
            for part, share in zip(parts, shares, strict=True)
            for number, answer in zip(part, share.answers, strict=False)
        }


def _measure(board: RemoteMeasurer, built: Built, pairs: list[tuple[int, int]]) -> Share:
    """What seemed to crash just before a board was lost may have been lost with it."""
    answers: list[Answer | None] = []
    try:
        answers.extend(board.measure(built, pairs))
        if answers and answers[-1] is None:
            board.check()
    except DeviceError as error:
        return Share(_without_last_crashes(answers), error)
    return Share(answers)


def _without_last_crashes(answers: list[Answer | None]) -> list[Answer | None]:
    worked = [number for number, answer in enumerate(answers) if answer is not None]
    return answers[: worked[-1] + 1] if worked else []
