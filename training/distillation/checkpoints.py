"""What learning has come to, in a file: whole or not at all, so that a process may be killed at any moment."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphopt.errors import DataError
from graphopt.files import replacing

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A file, and a hash of the learning that it belongs to."""

    path: Path
    subject: str

    def save(self, content: dict[str, Any]) -> None:
        """Replaces what was there. Raises OutputError."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "subject": self.subject, "content": content}, buffer)
        with replacing(self.path) as file:
            file.write(buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """What was saved last, None where nothing was. Raises DataError for a damaged file, or one of something else."""
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch makes of bytes that are no checkpoint
            raise DataError(
                f"{self.path} is no checkpoint, or damaged; remove it ({_first(error)})"
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{self.path} is no checkpoint; remove it, or name another")
        if found["subject"] != self.subject:
            raise DataError(
                f"{self.path} is the checkpoint of other learning (models, data or options differ); remove it, or name another"
            )
        content: dict[str, Any] = found["content"]
        return content


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
