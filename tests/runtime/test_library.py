"""Loading machine code from memory."""

import _ctypes
import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from graphopt_runtime import load
from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.library import Handle, Library

X = np.ones(64, np.float32)


def ratio(path: Path) -> float:
    with load(path, threads=1) as model:
        y, z = model(X)
    return float(z[1] / y[1])


def test_code_that_is_no_library_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"it: its library cannot be loaded: .*ELF"):
        Library(memoryview(b"x" * 5000), "it")


def test_a_library_of_another_kind_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "empty.so"
    subprocess.run(["cc", "-shared", "-x", "c", "-o", str(out), "/dev/null"], check=True)
    files = os.listdir("/proc/self/fd")
    with pytest.raises(ArtifactError, match=r"not a graphopt model: .*graphopt_create"):
        Library(memoryview(out.read_bytes()), "it")
    assert os.listdir("/proc/self/fd") == files


@pytest.mark.parametrize(("told", "reason"), [(b"", "out of memory"), (b"no GPU", "no GPU")])
def test_a_handle_that_cannot_be_created_is_reported(told: bytes, reason: str) -> None:
    library = cast(Library, SimpleNamespace(create=lambda weights, threads: None, failure=lambda: told))
    with pytest.raises(ArtifactError, match=reason):
        Handle(library, 0, 1, None)


def test_libraries_are_not_mistaken_for_earlier_ones(
    write_add: Callable[..., Path], triple_library: bytes
) -> None:
    double, triple = write_add(), write_add(triple_library, "triple.gopt")
    assert [ratio(path) for path in (double, triple, double, triple)] == [2, 3, 2, 3]
    with load(double, threads=1) as first, load(triple, threads=1) as second:
        assert [float(model(X)[1][1] / model(X)[0][1]) for model in (first, second)] == [2, 3]


def test_a_library_that_stays_loaded_keeps_its_descriptor(
    write_add: Callable[..., Path], triple_library: bytes
) -> None:
    before = descriptors()
    model = load(write_add(), threads=1)
    (link,) = descriptors() - before
    other = ctypes.CDLL(str(link))
    model.close()
    assert link.exists()
    assert ratio(write_add(triple_library, "triple.gopt")) == 3
    _ctypes.dlclose(other._handle)
    os.close(int(link.name))


def descriptors() -> set[Path]:
    """Those of libraries that are loaded from memory."""
    return {link for link in Path("/proc/self/fd").iterdir() if "memfd:graphopt" in _target(link)}


def _target(link: Path) -> str:
    """Empty for the descriptor that listed the folder, which is gone."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def refuse(name: str, flags: int) -> int:
    raise PermissionError("no memory of this kind")


@pytest.mark.parametrize("memfd_create", [None, refuse])
def test_systems_without_memfd_use_a_private_file(
    write_add: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memfd_create: Callable[[str, int], int] | None,
) -> None:
    path = write_add()
    folder = tmp_path / "temporary"
    folder.mkdir()
    if memfd_create is None:
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", memfd_create)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert ratio(path) == 2
    assert list(folder.iterdir()) == []
