"""Passes in sequence: ``run(model, passes, hooks)`` applies them and reports what each one did.

Verification, timing, statistics, dumps and bisection are hooks, so the loop itself knows none of them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import onnx_ir as ir

from graphopt.errors import OutputError, VerificationError
from graphopt.model import Statistics, statistics, text


@dataclass(frozen=True)
class Outcome:
    """What one application of a pass did: rules applied, and rules that matched but declined."""

    modified: bool = False
    applied: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.modified or other.modified, self.applied + other.applied, self.refused + other.refused
        )


@dataclass(frozen=True)
class Context:
    """What passes may need beyond the model itself.

    ``data`` yields calibration feeds, ``cost`` estimates the seconds a node takes, ``gains`` tells whether the target computes
    a node faster in half precision, ``progress`` receives messages.
    """

    seed: int = 0
    progress: Callable[[str], None] = lambda message: None
    data: Any = None
    cost: Callable[[ir.Node], float] | None = None
    gains: Callable[[ir.Node], bool] = lambda node: True


class Pass(Protocol):
    """ONNX in, ONNX out. Implementations are frozen dataclasses whose fields are their options."""

    name: ClassVar[str]

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Changes ``model`` in place; ``modified`` is true only if something really changed."""
        ...


@dataclass(frozen=True)
class Repeat:
    """Applies passes in turn until a whole round changes nothing, at most ``limit`` rounds."""

    name: ClassVar[str] = "repeat"
    passes: tuple[Pass, ...]
    limit: int = 10

    def __init__(self, passes: Iterable[Pass], limit: int = 10) -> None:
        object.__setattr__(self, "passes", tuple(passes))
        object.__setattr__(self, "limit", limit)

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        """Runs to the fixed point without hooks; ``run`` itself steps through ``rounds``."""
        return sum((each.apply(model, context) for each in self.rounds(model)), Outcome())

    def rounds(self, model: ir.Model) -> "Iterator[_Watched]":
        """The passes of every round, until each one has seen a model that none of the others changed since.

        Passes are idempotent, so the last one that changed the model need not see it again.
        """
        idle = 0
        for _ in range(self.limit):
            for each in self.passes:
                watched = _Watched(each)
                yield watched
                idle = 1 if watched.modified else idle + 1
                if idle >= len(self.passes):
                    return


class _Watched:
    """A pass of a Repeat that remembers whether it changed the model."""

    def __init__(self, inner: Pass) -> None:
        self.inner = inner
        self.modified = False

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        outcome = self.inner.apply(model, context)
        self.modified = outcome.modified
        return outcome


class Stop(Exception):
    """Raised by a hook to end the run; the model keeps the state it has."""


class Hook(Protocol):
    """Called around every pass."""

    def before(self, step: int, each: Pass, model: ir.Model) -> None: ...

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None: ...


@dataclass(frozen=True)
class Step:
    """One pass as it ran."""

    name: str
    outcome: Outcome


@dataclass
class Report:
    """The steps of a run, in order."""

    steps: list[Step] = field(default_factory=list)

    @property
    def modified(self) -> bool:
        """Whether any step changed the model."""
        return any(step.outcome.modified for step in self.steps)

    @property
    def applied(self) -> Counter[str]:
        """Times each rule was applied."""
        return sum((step.outcome.applied for step in self.steps), Counter())

    @property
    def refused(self) -> Counter[tuple[str, str]]:
        """Times each rule declined in its last application, by reason."""
        last: dict[str, Counter[tuple[str, str]]] = {}
        for step in self.steps:
            last[step.name] = step.outcome.refused
        return sum(last.values(), Counter())


def run(
    model: ir.Model, passes: Sequence[Pass], hooks: Sequence[Hook] = (), context: Context | None = None
) -> Report:
    """Applies ``passes`` to ``model`` in place, calling every hook around every pass."""
    context = context or Context()
    report = Report()
    try:
        for each in passes:
            _run_one(model, each, hooks, context, report)
    except Stop:
        pass
    return report


def _run_one(model: ir.Model, each: Pass, hooks: Sequence[Hook], context: Context, report: Report) -> None:
    if isinstance(each, Repeat):
        for watched in each.rounds(model):
            watched.modified = _run_step(model, watched.inner, hooks, context, report)
        return
    _run_step(model, each, hooks, context, report)


def _run_step(model: ir.Model, each: Pass, hooks: Sequence[Hook], context: Context, report: Report) -> bool:
    step = len(report.steps)
    for hook in hooks:
        hook.before(step, each, model)
    context.progress(each.name)
    outcome = each.apply(model, context)
    report.steps.append(Step(each.name, outcome))
    for hook in hooks:
        hook.after(step, each, model, outcome)
    return outcome.modified


@dataclass
class Timing:
    """Hook: the seconds of every pass, in order, as ``(name, seconds)``."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, step: int, each: Pass, model: ir.Model) -> None:
        self._started = time.perf_counter()

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None:
        self.seconds.append((each.name, time.perf_counter() - self._started))


@dataclass
class Stats:
    """Hook: the statistics of the model before the first pass and after each one, as ``(name, statistics)``."""

    history: list[tuple[str, Statistics]] = field(default_factory=list)

    def before(self, step: int, each: Pass, model: ir.Model) -> None:
        if not self.history:
            self.history.append(("input", statistics(model)))

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None:
        self.history.append((each.name, statistics(model)))


@dataclass
class Dump:
    """Hook: writes the model after each pass that changed it, as ONNX text, ``<folder>/003-cleanup.onnxtxt``.

    A second run, that of the next shape variant, goes into ``<folder>/variant2``.
    """

    folder: Path
    runs: int = 0

    def before(self, step: int, each: Pass, model: ir.Model) -> None:
        if step == 0:
            self.runs += 1
            self._write(model, "000-input")

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None:
        if outcome.modified:
            self._write(model, f"{step + 1:03d}-{each.name}")

    def _write(self, model: ir.Model, name: str) -> None:
        folder = self.folder / f"variant{self.runs}" if self.runs > 1 else self.folder
        try:
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.onnxtxt").write_text(text(model))
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error


@dataclass(frozen=True)
class StopAfter:
    """Hook: ends the run after ``count`` passes, to find by bisection the one that breaks a model."""

    count: int

    def before(self, step: int, each: Pass, model: ir.Model) -> None:
        if step >= self.count:
            raise Stop

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None:
        """Nothing to do."""


class Verify:
    """Hook: after each pass that changed the model, compares it with what entered the run, in ONNX Runtime.

    Raises ``VerificationError`` that names the pass. ``feeds`` are those of one run of the model. Steps whose result ONNX
    Runtime cannot run are listed with the reason in ``skipped``.
    """

    def __init__(self, feeds: Mapping[str, np.ndarray]) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._feeds = feeds
        self._expected: Mapping[str, np.ndarray] | None = None
        self._own = self._least = 0.0

    def before(self, step: int, each: Pass, model: ir.Model) -> None:
        from graphopt.accuracy.verify import ReferenceFailed, coarsest_tolerance, reference, self_difference

        if step > 0:
            return
        try:
            self._expected = reference(model)(self._feeds)
            self._least = coarsest_tolerance(model)
            self._own = self_difference(self._expected, reference(model, optimised=True)(self._feeds))
        except ReferenceFailed as error:
            self.skipped.append(("input", str(error)))

    def after(self, step: int, each: Pass, model: ir.Model, outcome: Outcome) -> None:
        from graphopt.accuracy.verify import ReferenceFailed, compare, reference

        if not outcome.modified or self._expected is None:
            return
        try:
            actual = reference(model)(self._feeds)
        except ReferenceFailed as error:
            self.skipped.append((each.name, str(error)))
            return
        verdict = compare(self._expected, actual, self._own, self._least)
        if not verdict.passed:
            raise VerificationError(f"pass {each.name!r} (step {step + 1}) changed the result: {verdict}")
