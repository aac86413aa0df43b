"""Files are written whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from graphopt.errors import OutputError


def require_replaceable(path: Path) -> None:
    """Raises OutputError for a device or a pipe: a file that is renamed to its name would take its place."""
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is there, and no regular file")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` at the end, or vanishes if anything fails. Raises OutputError."""
    with replacing_together([path]) as [file]:
        yield file


@contextmanager
def replacing_together(paths: Sequence[Path]) -> Iterator[list[IO[bytes]]]:
    """New files that take the places of `paths` once all of them are on the disk, one after the other, or vanish together.
    Raises OutputError."""
    drafts: list[IO[bytes]] = []
    try:
        with _told(*paths), ExitStack() as stack:
            for path in paths:
                require_replaceable(path)
                with _told(path):
                    drafts.append(stack.enter_context(_draft(path)))
            yield drafts
            for draft, path in zip(drafts, paths, strict=True):
                with _told(path):
                    _finish(draft)
        for draft, path in zip(drafts, paths, strict=True):
            with _told(path):
                Path(draft.name).replace(path)
    except BaseException:
        for draft in drafts:
            with suppress(OSError):
                Path(draft.name).unlink()
        raise


@contextmanager
def _told(*paths: Path) -> Iterator[None]:
    """What the system complains of is an OutputError that names the files."""
    try:
        yield
    except OSError as error:
        names = ", ".join(map(str, paths))
        raise OutputError(f"cannot write {names}: {error.strerror or error}") from error


def _draft(path: Path) -> IO[bytes]:
    """A file next to `path`, which stays when it is closed."""
    return NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)


def _finish(draft: IO[bytes]) -> None:
    """All of it is on the disk, with the permissions of any new file."""
    draft.flush()
    os.fsync(draft.fileno())
    os.fchmod(draft.fileno(), 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
