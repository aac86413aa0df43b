"""Which layers have to stay float so that a model on integers keeps within a budget: the worst go first, as many as it takes.

Every measurement is a line of a journal, so that an interrupted search goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import DataError, GraphoptError, OutputError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """A model with these layers on floats, and what its metric lost."""

    floats: tuple[str, ...]
    drop: float

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"float_layers": list(self.floats), "drop": self.drop}


@dataclass(frozen=True)
class Search:
    """What was measured: the quality of the output when one layer alone is on integers, worst first; the trials in their order;
    and the layers that stay float."""

    sqnr_db: dict[str, float]
    trials: list[Trial]
    floats: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        trials = [trial.to_json() for trial in self.trials]
        return {"sqnr_db": self.sqnr_db, "trials": trials, "float_layers": list(self.floats)}


@dataclass(frozen=True)
class Problem:
    """`drop_of` measures what a model loses whose given layers are on floats; `sqnr_of` the quality in dB of one that has a single
    layer on integers."""

    layers: Sequence[str]
    drop_of: Callable[[Sequence[str]], float]
    sqnr_of: Callable[[str], float]


def search(problem: Problem, budget: float, journal: Journal, progress: Progress) -> Search:
    """The fewest layers, worst first, that have to stay float for the drop to be within the budget.

    The drop is taken to fall as layers become float: their number is found by bisection. Raises GraphoptError where even all of
    them do not suffice.
    """
    trials: list[Trial] = []

    def drop_of(floats: tuple[str, ...]) -> float:
        progress(f"search: {len(floats)} of {len(problem.layers)} layers on floats")
        drop = journal.remember(f"drop {json.dumps(floats)}", lambda: problem.drop_of(floats))
        trials.append(Trial(floats, drop))
        return drop

    if drop_of(()) <= budget:
        return Search({}, trials, ())
    worst = _rank(problem, journal, progress)
    names = list(worst)
    too_few, enough = 0, len(names)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if drop_of(tuple(names[:middle])) <= budget:
            enough = middle
        else:
            too_few = middle
    if enough == len(names) and drop_of(tuple(names)) > budget:
        raise GraphoptError(
            f"with every layer on floats {trials[-1].drop:g} is lost still, {budget:g} may be"
        )
    return Search(worst, trials, tuple(names[:enough]))


def _rank(problem: Problem, journal: Journal, progress: Progress) -> dict[str, float]:
    """The quality with each layer alone on integers, worst first."""
    found = {}
    for number, layer in enumerate(problem.layers):
        progress(f"search: layer {number + 1} of {len(problem.layers)} alone")
        found[layer] = journal.remember(f"alone {layer}", lambda layer=layer: problem.sqnr_of(layer))  # type: ignore[misc]
    return dict(sorted(found.items(), key=lambda item: item[1]))


class Journal:
    """Numbers by name, in a file of JSON lines that starts with what they are of; without a path in memory alone.

    Raises DataError for a file that is of something else, or damaged other than at its end.
    """

    def __init__(self, path: Path | None, subject: str) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.exists():
            self._read(path, subject)
        else:
            self._append({"subject": subject})

    def remember(self, name: str, measure: Callable[[], float]) -> float:
        """A number that was written down, or else is measured and written down now."""
        if name not in self._known:
            self._known[name] = measure()
            self._append({"name": name, "value": self._known[name]})
        return self._known[name]

    def _read(self, path: Path, subject: str) -> None:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no journal of a search: {error}") from error
        lines = text.splitlines()
        entries = [_parsed(line) for line in lines]
        if not entries or entries[0] is None or entries[0].get("subject") != subject:
            raise DataError(
                f"{path} is the journal of another search (model, data or options differ); remove it, or name another"
            )
        if None in entries[:-1]:
            raise DataError(f"{path} is damaged in line {entries.index(None) + 1}; remove it")
        whole = [entry for entry in entries if entry is not None]
        self._known = {entry["name"]: float(entry["value"]) for entry in whole if "name" in entry}
        if len(whole) < len(entries) or not text.endswith("\n"):
            path.write_text("".join(f"{line}\n" for line in lines[: len(whole)]))

    def _append(self, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a") as file:
                file.write(f"{json.dumps(entry)}\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error


def _parsed(line: str) -> dict[str, Any] | None:
    """None for a line that is no entry, as one that was not written to its end."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_entry = isinstance(entry, dict) and ("subject" in entry or {"name", "value"} <= entry.keys())
    return entry if is_entry else None
