"""What a backend of ``compare`` offers."""

import importlib.util
from pathlib import Path
from typing import Protocol

from graphopt.timing.worker import Runner


class Backend(Protocol):
    """A backend; implementations are frozen dataclasses, so that ``load`` can be sent to a worker process."""

    def available(self) -> str | None:
        """Why the backend cannot be used here, or None if it can. Imports nothing heavy."""
        ...

    def load(self, model_path: Path, threads: int) -> Runner:
        """Load a model to run with ``threads`` threads."""
        ...


def missing(modules: tuple[str, ...], remedy: str) -> str | None:
    """The reason why a backend is not available: which modules cannot be found, and how to get them."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed: {remedy}" if absent else None
