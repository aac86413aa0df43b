"""Measured schedules in one file of text lines, that grows by a line a trial and survives being cut off anywhere.

The first line names the format. Every other one is a JSON object: workload, target, versions, schedule, and its time in
microseconds, or null where it failed; "in model" tells the times of kernels among the others of their model from those of
kernels alone. Files are merged by concatenating their lines.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Self

from graphopt.backends.schedules.workload import Config, Workload
from graphopt.errors import TuningError

HEADER = json.dumps({"graphopt tuning database": 1})

LONGEST_LINE = 1 << 16
"""Bytes; far more than a trial takes."""

DIGITS = 4
"""Decimals of microseconds."""


def versions() -> str:
    """Of what decides how fast a schedule is."""
    return f"graphopt {version('graphopt')} tvm {version('apache-tvm')}"


@dataclass(frozen=True)
class Trial:
    """One measurement, alone or in a model; `microseconds` is None for a schedule that failed."""

    workload: Workload
    target: str
    config: Config
    microseconds: float | None
    versions: str
    in_model: bool = False

    def line(self) -> str:
        """The line that stands for it."""
        content = {
            "workload": str(self.workload),
            "target": self.target,
            "versions": self.versions,
            "schedule": dict(self.config),
            "us": None if self.microseconds is None else round(self.microseconds, DIGITS),
        }
        return json.dumps({**content, "in model": True} if self.in_model else content)

    @classmethod
    def parse(cls, line: str) -> Self:
        """The trial of a line. Raises ValueError, KeyError or TypeError for any other text."""
        content: dict[str, Any] = json.loads(line)
        spent = content["us"]
        return cls(
            Workload.parse(content["workload"]),
            str(content["target"]),
            {str(name): value for name, value in content["schedule"].items()},
            None if spent is None else float(spent),
            str(content["versions"]),
            bool(content.get("in model", False)),
        )


Times = defaultdict[tuple[str, Workload], dict[str, float | None]]


class Database:
    """The trials of a file, and of those that are added. Reads nothing that another version of graphopt or TVM measured."""

    def __init__(self, path: Path) -> None:
        """Raises TuningError for a file that is no database, or that cannot be read."""
        self.path = path
        self._alone: Times = defaultdict(dict)
        self._in_model: Times = defaultdict(dict)
        for trial in self._read() if path.exists() else ():
            if trial.versions == versions():
                self._note(trial)

    def times(self, target: str, workload: Workload) -> list[tuple[Config, float | None]]:
        """The schedules of a workload that were measured alone, the fastest first and failed ones last."""
        return _ordered(self._alone.get((target, workload), {}))

    def times_in_model(self, target: str, workload: Workload) -> list[tuple[Config, float | None]]:
        """The schedules of a workload that were measured in a model, the fastest first."""
        return _ordered(self._in_model.get((target, workload), {}))

    def fastest(self, target: str) -> dict[Workload, list[Config]]:
        """The schedules that worked, of every workload: those measured in a model, then the others, the fastest first."""
        return {
            workload: [
                config
                for config, spent in self.times_in_model(target, workload) + self.times(target, workload)
                if spent is not None
            ]
            for known, workload in self._alone | self._in_model
            if known == target
        }

    def add(self, trials: Iterable[Trial]) -> None:
        """Append trials to the file, to which other processes may append too; whatever happens to this one then, they stay.

        Raises TuningError if that fails.
        """
        trials = list(trials)
        text = "".join(f"{trial.line()}\n" for trial in trials)
        try:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = _drop_torn_line(file)
                file.write((text if end else f"{HEADER}\n{text}").encode())
        except OSError as error:
            raise TuningError(f"cannot write {self.path}: {error.strerror or error}") from error
        for trial in trials:
            self._note(trial)

    def _note(self, trial: Trial) -> None:
        """Alone the fastest time of a schedule counts, in a model the latest: what is around it may have changed."""
        kind = self._in_model if trial.in_model else self._alone
        times = kind[trial.target, trial.workload]
        key = json.dumps(dict(trial.config), sort_keys=True)
        known = times.get(key)
        if known is None or trial.in_model or (trial.microseconds is not None and trial.microseconds < known):
            times[key] = trial.microseconds

    def _read(self) -> Iterator[Trial]:
        """Trials of the file. A last line that was cut off is left out, and later written over."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise TuningError(f"cannot read {self.path}: {error.strerror or error}") from error
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        if not f"{HEADER}\n".encode().startswith(content[: len(HEADER) + 1]):
            raise TuningError(f"{self.path} is not a tuning database of this version of graphopt")
        for number, line in enumerate(lines[1:], 2):
            if line == HEADER.encode():
                continue
            try:
                yield Trial.parse(line.decode())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise TuningError(f"{self.path}: line {number} is no trial: {line[:80]!r}") from error


def _ordered(times: dict[str, float | None]) -> list[tuple[Config, float | None]]:
    """The fastest first, failed ones last."""
    ordered = sorted(times.items(), key=lambda item: (item[1] is None, item[1] or 0.0, item[0]))
    return [(json.loads(config), spent) for config, spent in ordered]


def _drop_torn_line(file: BinaryIO) -> int:
    """Cut off what follows the last whole line, and give its end."""
    start = max(file.seek(0, os.SEEK_END) - LONGEST_LINE, 0)
    file.seek(start)
    end = start + file.read().rfind(b"\n") + 1
    file.truncate(end)
    return end
