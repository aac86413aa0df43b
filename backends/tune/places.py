"""Where candidates and models are timed: on this machine, on a device, or on several of one kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import graphopt_runtime
from graphopt.artifacts.devices import Device
from graphopt.backends.tune.measuring import Measurer
from graphopt.backends.tune.protocol import Answer, Built
from graphopt.backends.tune.remote import RemoteMeasurer
from graphopt.backends.tune.shared import SharedMeasurer


class Timer(Protocol):
    """Times candidates; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def measure(self, built: Built, pairs: list[tuple[int, int]]) -> Iterator[Answer | None]:
        """Times of every pair of variants, one after the other; None for one that crashed or did not end."""
        ...


class Profiled(Protocol):
    """A model that was compiled with profiling; a context manager."""

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def layer_times(self, feeds: Mapping[str, Any], repeats: int = 1) -> list[float]:
        """Seconds that each kernel took."""
        ...


class Place(Protocol):
    """A machine with the number of threads that it uses."""

    def timer(self) -> Timer: ...

    def load(self, path: Path) -> Profiled: ...


@dataclass(frozen=True)
class Here:
    """This machine."""

    threads: int

    def timer(self) -> Timer:
        return Measurer(self.threads)

    def load(self, path: Path) -> Profiled:
        return graphopt_runtime.load(path, self.threads, verify=False)


@dataclass(frozen=True)
class There:
    """A device."""

    device: Device
    threads: int

    def timer(self) -> Timer:
        return RemoteMeasurer(self.device.connect, self.threads)

    def load(self, path: Path) -> Profiled:
        return self.device.load(path, self.threads)


@dataclass(frozen=True)
class Boards:
    """Devices of one kind: they share out candidates, and the first one runs models, whose times are compared."""

    devices: Sequence[Device]
    threads: int

    def timer(self) -> Timer:
        return SharedMeasurer([RemoteMeasurer(device.connect, self.threads) for device in self.devices])

    def load(self, path: Path) -> Profiled:
        return self.devices[0].load(path, self.threads)
