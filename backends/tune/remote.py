"""Measures libraries of candidates on a device, each in a session of its own; after a crash in a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

from graphopt.artifacts.device import Session
from graphopt.backends.tune.protocol import FLUSH, Answer, Built
from graphopt.backends.tune.runner import measure
from graphopt.errors import DeviceError

CONNECTIONS = 3
"""Crashes in a row after which the device is taken to be gone."""


class RemoteMeasurer:
    """Takes the place of `measuring.Measurer`; `connect` opens a session."""

    def __init__(self, connect: Callable[[], Session], threads: int) -> None:
        self._connect, self._threads = connect, threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self) -> None:
        """Raises DeviceError for a device that does not answer."""
        self._connect().close()

    def measure(self, built: Built, pairs: list[tuple[int, int]]) -> Iterator[Answer | None]:
        """Times of every pair of variants, one after the other; None for one that crashed. Raises DeviceError for a device
        that is gone."""
        done = crashes = 0
        while done < len(pairs):
            try:
                with self._connect() as session:
                    loaded = _Loaded(session, built, self._threads)
                    for candidate, reference in pairs[done:]:
                        yield measure(loaded, candidate, reference)
                        done, crashes = done + 1, 0
            except DeviceError:
                crashes += 1
                if crashes == CONNECTIONS:
                    raise
                yield None
                done += 1


class _Loaded:
    """A library with memory for its tensors, on the device."""

    def __init__(self, session: Session, built: Built, threads: int) -> None:
        self._session = session
        session.load(memoryview(built.path.read_bytes()), memoryview(bytes(built.weights)), threads)
        for variant, (inputs, outputs) in enumerate(zip(built.inputs, built.outputs, strict=True)):
            session.keep(variant, inputs, outputs)

    def seconds(self, variant: int) -> float:
        """Of one run with the caches as the rest of a model leaves them."""
        self._session.time_kept(FLUSH)
        return self._session.time_kept(variant)
