"""What may be written where."""

from pathlib import Path

from graphopt.errors import OutputError


def require_replaceable(path: Path) -> None:
    """Raises OutputError for a device or a pipe: a file that is renamed to its name would take its place."""
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is there, and no regular file")
