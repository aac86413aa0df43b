"""The search: which candidates of which task to measure next, until the budget is spent or gains fade.

Every step builds batches of candidates of the tasks that may still save most over the whole model, and then, while nothing
is built, measures them. Candidates are timed in turns with the best schedule so far, so that drift of the machine cancels out.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import Target
from graphopt.backends.tune.builders import Job, Pool
from graphopt.backends.tune.building import Candidate
from graphopt.backends.tune.database import DIGITS, Database, Trial, versions
from graphopt.backends.tune.places import Place, Timer
from graphopt.backends.tune.protocol import Answer, Built
from graphopt.backends.tune.tasks import Task
from graphopt.timing.tuning import Budget

BATCH = 16
"""Candidates that are built into one library."""

ROUNDS = 2
"""Batches a builder in a step, so that few builders wait for the last one."""

WORTHWHILE = 2.0
"""Candidates estimated slower than the best estimate by more than this factor are left out."""

MOST_CANDIDATES = 96
"""Candidates of a task, the best estimates first."""

HOPE, LEAST_HOPE = 0.2, 0.004
"""Share of a task's time that the next batch may save: at first, and below which the task is done."""

_CONVOLUTION = (
    "conv {batch}x{channels}x{input_h}x{input_w} -> {filters}x{output_h}x{output_w}, {kernel_h}x{kernel_w}"
)

SHORT = {
    "byteconv": _CONVOLUTION,
    "bytegemm": "gemm {m}x{n}x{k}",
    "conv": _CONVOLUTION,
    "gemm": "gemm {batch}x{m}x{n}x{k}",
    "tensor_convolution": "conv {batch}x{channels}x{input_0} -> {filters}x{output_0}, {kernel_0}, first axis",
    "tensor_product": "product {batch}x{rows}x{columns}x{depth}",
}
"""Families of workloads in few words; the others are told in full."""

Progress = Callable[[str], None]


@dataclass
class State:
    """What is known of a task; `best` is its fastest schedule with its time, `rule` that of the rule."""

    task: Task
    queue: list[Config]
    rule: Config
    times: dict[str, float] = field(default_factory=dict)
    hope: float = HOPE

    @property
    def best(self) -> tuple[Config, float] | None:
        if not self.times:
            return None
        key = min(self.times, key=lambda config: (self.times[config], config))
        return json.loads(key), self.times[key]

    @property
    def rule_us(self) -> float | None:
        """Microseconds of the rule's schedule."""
        return self.times.get(_key(self.rule))

    @property
    def saving(self) -> float:
        """Microseconds of the whole model that the next batch may save; unknown ones first."""
        if not self.queue:
            return 0.0
        return float("inf") if self.best is None else self.task.count * self.best[1] * self.hope

    @property
    def done(self) -> bool:
        return not self.queue or self.hope < LEAST_HOPE

    def next_batch(self, trials: int) -> list[Candidate]:
        """The reference, which is the best schedule so far or else the rule's, then new candidates: `trials` new ones."""
        reference = self.rule if self.best is None else self.best[0]
        self.queue = [config for config in self.queue if config != reference]
        count = trials if self.best is not None else trials - 1
        chosen, self.queue = self.queue[:count], self.queue[count:]
        return [Candidate(self.task.workload, config) for config in (reference, *chosen)]

    def note(self, config: Config, microseconds: float) -> None:
        """A new time."""
        key = _key(config)
        self.times[key] = min(microseconds, self.times.get(key, microseconds))

    def conclude(self, before: float | None) -> None:
        """What a batch says of the next one, given the best time before it."""
        if self.best is None:
            self.queue = []
            return
        reference = self.rule_us if before is None else before
        gained = 0.0 if reference is None else 1 - self.best[1] / reference
        self.hope = max(gained, self.hope / 2)


def _best_of_each_algorithm(configs: Sequence[Config]) -> list[Config]:
    """What the estimate says about two algorithms is not trusted: the first schedule of each is measured in any case."""
    found: dict[object, Config] = {}
    for config in configs:
        found.setdefault(config.get("algorithm"), config)
    return list(found.values())


def _key(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True)


class Search:
    """Tunes tasks for a target; all trials go into the database at once."""

    def __init__(
        self,
        tasks: Sequence[Task],
        target: Target,
        database: Database,
        builders: Pool,
        flush_bytes: int,
    ) -> None:
        self.target, self.database = target, database
        self.states = [self._state(task) for task in tasks]
        self.trials = 0
        self._builders, self._flush_bytes = builders, flush_bytes
        self._number = itertools.count()

    def run(self, budget: Budget, place: Place, progress: Progress) -> None:
        """Search until the budget is spent or nothing is to be gained any more."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="graphopt-tune-") as name, place.timer() as timer:
            while True:
                passed = time.monotonic() - started
                trials = self._affordable(budget, passed)
                states = self._next(trials)
                if not states or passed >= budget.seconds:
                    return
                progress(self._report(budget, passed, states[0]))
                self._step(states, trials, Path(name), timer)

    def _affordable(self, budget: Budget, passed: float) -> int:
        """Trials that are left, and for which there is time."""
        left = budget.trials - self.trials
        if not self.trials or budget.seconds == float("inf"):
            return left
        return min(left, math.ceil(self.trials / passed * (budget.seconds - passed)))

    def _state(self, task: Task) -> State:
        """What the database knows of a task already is not measured again."""
        found = FAMILIES[task.workload.family].candidates(task.workload, self.target.core)
        limit = WORTHWHILE * found[0][0]
        leaders = _best_of_each_algorithm([config for _, config in found])
        worthwhile = [config for cycles, config in found[:MOST_CANDIDATES] if cycles <= limit]
        queue = [*leaders, *(config for config in worthwhile if config not in leaders)]
        state = State(task, queue, queue[0])
        for config, microseconds in self.database.times(self.target.name, task.workload):
            state.queue = [other for other in state.queue if other != config]
            if microseconds is not None:
                state.note(config, microseconds)
        return state

    def _next(self, trials: int) -> list[State]:
        """The most promising tasks, as many as a step has batches."""
        open_states = sorted((s for s in self.states if not s.done), key=lambda s: -s.saving)
        batches = min(self._builders.count * ROUNDS, -(-trials // BATCH))
        return open_states[: max(batches, 0)]

    def _step(self, states: Sequence[State], trials: int, folder: Path, timer: Timer) -> None:
        """Build a batch of every task, `trials` candidates at most, then measure them."""
        before = [state.best for state in states]
        batches = [state.next_batch(min(BATCH, trials - BATCH * i)) for i, state in enumerate(states)]
        for state, batch, built in zip(states, batches, self._build(batches, folder), strict=True):
            pieces = [(batch, built)]
            if built is None and len(batch) > 1:
                singles = [batch[:1], *([batch[0], candidate] for candidate in batch[1:])]
                pieces = list(zip(singles, self._build(singles, folder), strict=True))
            for piece, library in pieces:
                self._measure(state, piece, library, timer)
        for state, best in zip(states, before, strict=True):
            state.conclude(None if best is None else best[1])

    def _build(self, batches: Sequence[list[Candidate]], folder: Path) -> list[Built | None]:
        jobs = [
            Job(batch, self.target, self._flush_bytes, folder / f"{next(self._number)}.so")
            for batch in batches
        ]
        return self._builders.build(jobs)

    def _measure(self, state: State, batch: list[Candidate], built: Built | None, timer: Timer) -> None:
        """Time the new candidates next to the reference, and that one alone where it is new. Ones without a library failed."""
        first = 0 if state.best is None else 1
        new = batch[first:]
        pairs = [(i + 1, 1) for i in range(first, len(batch))]
        answers = [None] * len(new) if built is None else timer.measure(built, pairs)
        for number, (candidate, answer) in enumerate(zip(new, answers, strict=True), first):
            spent = None
            if answer is not None and built is not None:
                known = state.times.get(_key(batch[0].config))
                spent = round(_microseconds(answer, known, built.shares[number], built.shares[0]), DIGITS)
                state.note(candidate.config, spent)
            self._record(candidate, spent)
        if built is not None:
            built.path.unlink()

    def _record(self, candidate: Candidate, microseconds: float | None) -> None:
        self.trials += 1
        self.database.add(
            [Trial(candidate.workload, self.target.name, candidate.config, microseconds, versions())]
        )

    def _report(self, budget: Budget, passed: float, state: State) -> str:
        tasks_done = sum(other.done for other in self.states)
        left = budget.seconds - passed
        if self.trials:
            left = min(left, passed / self.trials * max(budget.trials - self.trials, 0))
        best = "" if state.best is None else f", best {state.best[1]:.1f} us"
        end = f", at most {left:.0f} s left" if left < float("inf") else ""
        return (
            f"tune: trial {self.trials} of {budget.trials}, {tasks_done} of {len(self.states)} tasks done; "
            f"{short(state.task.workload)}{best}{end}"
        )


def _microseconds(answer: Answer, known: float | None, share: float, reference_share: float) -> float:
    """Of the whole workload: what was measured is a share of it. The reference took `known` when it was measured first."""
    spent = answer.candidate / share
    return spent if known is None else spent * known / (answer.reference / reference_share)


def short(workload: Workload) -> str:
    """A workload in few words."""
    if (words := SHORT.get(workload.family)) is None:
        return str(workload)
    return words.format(**dict(workload.facts))
