"""Files are written whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

from graphopt.errors import OutputError


def require_replaceable(path: Path) -> None:
    """Raises OutputError for a device or a pipe: a file that is renamed to its name would take its place."""
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is there, and no regular file")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end, or vanishes if anything fails. Raises OutputError."""
    with replacing_together([path]) as [file]:
        yield file


@contextmanager
def replacing_together(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """New files that take the places of `paths` once all of them are on the disk, or vanish together. Raises OutputError."""
    drafts: list[Any] = []
    try:
        with ExitStack() as stack:
            for path in paths:
                require_replaceable(path)
                drafts.append(stack.enter_context(_draft(path)))
            yield drafts
            for draft in drafts:
                draft.flush()
                os.fsync(draft.fileno())
        for draft, path in zip(drafts, paths, strict=True):
            Path(draft.name).chmod(0o666 & ~_umask())
            Path(draft.name).replace(path)
    except BaseException as error:
        for draft in drafts:
            with suppress(OSError):
                Path(draft.name).unlink()
        if isinstance(error, OSError):
            names = ", ".join(map(str, paths))
            raise OutputError(f"cannot write {names}: {error.strerror or error}") from error
        raise


def _draft(path: Path) -> Any:
    """A file next to `path`, which stays when it is closed."""
    return NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
