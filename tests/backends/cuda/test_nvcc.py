"""Where NVIDIA's compiler is looked for, and what is told where something is missing."""

import importlib
import sys
from pathlib import Path

import pytest

from graphopt.backends.cuda import nvcc
from graphopt.errors import TargetError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a toolkit; the folder of its Python packages."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    which = nvcc.shutil.which
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(nvcc.shutil, "which", lambda name, path=None: _outside(which(name, path=path)))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    importlib.invalidate_caches()
    return tmp_path / "site"


def _outside(path: str | None) -> str | None:
    """Without the toolkit of this machine."""
    return None if path is None or path.startswith("/usr/local/") else path


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_packages_of_python_are_the_last_resort(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvcc.find_nvcc() is None
    old, new = (program(bare / "nvidia" / name / "bin" / "nvcc") for name in ("cu13", "cu14"))
    importlib.invalidate_caches()
    assert nvcc.find_nvcc() == str(new)
    new.unlink()
    assert nvcc.find_nvcc() == str(old)
    home = program(bare / "toolkit" / "bin" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", str(bare / "toolkit"))
    assert nvcc.find_nvcc() == str(home)


def test_version_and_path_are_told(bare: Path) -> None:
    program(bare.parent / "bin" / nvcc.HOST)
    path = program(bare / "nvidia" / "cu13" / "bin" / "nvcc", "echo 'release 13.0, V13.0.88'")
    assert nvcc.describe_nvcc() == f"13.0.88 ({path})"


def test_without_the_compiler_an_extra_is_named(bare: Path) -> None:
    with pytest.raises(TargetError, match=r"nvcc is not installed; pip install 'graphopt\[cuda\]'"):
        nvcc.require_nvcc()
    assert nvcc.describe_nvcc().startswith("not installed: pip install")


def test_without_a_compiler_of_the_host_that_is_named(bare: Path) -> None:
    program(bare / "nvidia" / "cu13" / "bin" / "nvcc")
    with pytest.raises(TargetError, match=r"nvcc needs g\+\+; on Debian: apt-get install g\+\+"):
        nvcc.require_nvcc()
