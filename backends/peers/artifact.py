"""graphopt itself: an artifact run by the runtime, as a user's program would run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.arrays import Feeds
from graphopt.timing.worker import Runner


@dataclass(frozen=True)
class ArtifactBackend:
    """Runs .gopt files."""

    def available(self) -> str | None:
        return None

    def load(self, model_path: Path, threads: int) -> Runner:
        from graphopt.backends.execution import open_anywhere

        model, emulator = open_anywhere(model_path, threads)
        return _Runner(model) if emulator is None else _EmulatedRunner(model, emulator)


class _Runner:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._outputs = [output.name for output in model.get_outputs()]

    @property
    def precision(self) -> str:
        return str(self._model.manifest.get("precision", "float32"))

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        return dict(zip(self._outputs, self._model.run(None, dict(feeds)), strict=True))


class _EmulatedRunner(_Runner):
    def __init__(self, model: Any, emulator: str) -> None:
        super().__init__(model)
        self.emulator = emulator

    @property
    def precision(self) -> str:
        return f"{super().precision} under {self.emulator}"
