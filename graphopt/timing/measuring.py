"""How `compare` and `bench` get at what they time: a loader for each backend, that runs in the backend's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.arrays import Feeds
from graphopt.errors import GraphoptError
from graphopt.timing.bench import Benchmark, Schedule, default_threads, measure

if TYPE_CHECKING:
    from graphopt.timing.worker import Runner

OURS = "graphopt"


@dataclass(frozen=True)
class BackendLoader:
    """Loads a model with a backend of `graphopt.backends.peers`. Raises GraphoptError where that is not installed."""

    backend: str
    path: Path
    threads: int

    def __call__(self) -> Runner:
        from graphopt.backends.peers import BACKENDS

        backend = BACKENDS[self.backend]
        if (reason := backend.available()) is not None:
            raise GraphoptError(reason)
        return backend.load(self.path, self.threads)


@dataclass(frozen=True)
class FailedLoader:
    """Stands for a backend that has no model to load, and says why."""

    reason: str

    def __call__(self) -> Runner:
        raise GraphoptError(self.reason)


def backend_of(name: str) -> str:
    """The backend that a name like `graphopt` or `graphopt:mine` stands for. Raises GraphoptError for an unknown one."""
    from graphopt.backends.peers import BACKENDS

    backend = name.split(":")[0]
    if backend not in BACKENDS:
        raise GraphoptError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return backend


def loader(name: str, threads: int, find: Callable[[str], Path]) -> BackendLoader | FailedLoader:
    """A loader of the file that `find` gives for a backend; one that fails if `find` does."""
    backend = backend_of(name)
    try:
        return BackendLoader(backend, find(backend), threads)
    except GraphoptError as error:
        return FailedLoader(str(error))


def bench_artifact(path: Path, feeds: Feeds, threads: int | None, schedule: Schedule) -> Benchmark:
    """Time an artifact in a process of its own."""
    threads = threads or default_threads()
    return measure(
        str(path), {OURS: BackendLoader(OURS, path, threads)}, feeds, threads=threads, schedule=schedule
    )


def reference_outputs(path: Path, feeds: Feeds) -> Mapping[str, Any] | None:
    """What ONNX Runtime makes of the feeds, graph optimisation off; None if it cannot run the model."""
    from graphopt.accuracy.verify import ReferenceFailed, reference

    try:
        return reference(path)(feeds)
    except ReferenceFailed:
        return None
