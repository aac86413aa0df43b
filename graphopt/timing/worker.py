"""One backend in a process of its own: loading, timed blocks and peak memory, asked for over a pipe."""

import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from graphopt.arrays import Feeds
from graphopt.timing.child import Child, ChildDied

# Idle threads of a backend spin for some milliseconds before they sleep; until then they disturb the next
# one.
SETTLE_S = 0.1
# Runs that wake the threads up again and are not counted.
WAKE_RUNS = 2


class Runner(Protocol):
    """A loaded model."""

    @property
    def precision(self) -> str:
        """The precision the backend really computes in, such as ``float32`` or ``bfloat16``."""
        ...

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        """Outputs by name."""
        ...


@runtime_checkable
class Emulated(Protocol):
    """A runner under an emulator, whose times mean nothing: it is run once."""

    emulator: str


# Loads a model. It is called in the worker process, so it must be picklable: a module's function or a partial
# of one.
Loader = Callable[[], Runner]


class Worker:
    """The parent's end of a worker process; after a failure ``error`` is set and it answers nothing more."""

    def __init__(self, loader: Loader, feeds: Feeds, timeout_s: float) -> None:
        self.error = ""
        self._timeout_s = timeout_s
        self._child = Child("graphopt.timing.worker")
        self._child.send((loader, dict(feeds)))

    def ask(self, command: str, argument: int = 0) -> Any:
        """The worker's answer, or None after a failure."""
        if self.error:
            return None
        try:
            self._child.send((command, argument))
            answer, self.error = self._child.receive(self._timeout_s)
        except ChildDied as failure:
            self.error = str(failure)
        return None if self.error else answer

    def stop(self) -> None:
        """End the process, by force if it does not listen."""
        self._child.stop()


def serve(pipe: Connection) -> None:
    """The worker's loop: answer (result, failure) to every command until the pipe closes."""
    session = _Session(*pipe.recv())
    commands: dict[str, Callable[[int], Any]] = {
        "load": session.load,
        "block": session.block,
        "peak": lambda _: peak_rss_mb(),
    }
    while True:
        try:
            command, argument = pipe.recv()
        except EOFError:
            return
        try:
            answer = (commands[command](argument), "")
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is its result
            answer = (None, f"{type(error).__name__}: {error}")
        pipe.send(answer)


class _Session:
    """A model in a worker."""

    def __init__(self, loader: Loader, feeds: Feeds) -> None:
        self._loader, self._feeds = loader, feeds

    def load(self, warmup: int) -> dict[str, Any]:
        started = time.perf_counter()
        self._runner = self._loader()
        load_ms = (time.perf_counter() - started) * 1e3
        outputs = {name: np.copy(value) for name, value in self._runner.run(self._feeds).items()}
        for _ in range(0 if self._is_emulated else warmup):
            self._runner.run(self._feeds)
        return {"load_ms": load_ms, "precision": self._runner.precision, "outputs": outputs}

    def block(self, runs: int) -> list[float]:
        """Milliseconds of each run, once the other backends' threads sleep and our own are awake; none under an emulator."""
        if self._is_emulated:
            return []
        time.sleep(SETTLE_S)
        for _ in range(WAKE_RUNS):
            self._runner.run(self._feeds)
        return [self._time() for _ in range(runs)]

    @property
    def _is_emulated(self) -> bool:
        return isinstance(self._runner, Emulated)

    def _time(self) -> float:
        started = time.perf_counter_ns()
        self._runner.run(self._feeds)
        return (time.perf_counter_ns() - started) / 1e6


def peak_rss_mb() -> float:
    """The largest resident set of this process so far.

    From /proc, because ``getrusage`` also counts what the parent held when it started the process.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
