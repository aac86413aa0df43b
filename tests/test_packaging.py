"""The package list of pyproject.toml against the folders that exist, and the names they are imported by."""

import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import graphopt.backends
import graphopt.passes

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "graphopt": "graphopt",
    "graphopt.passes": "passes",
    "graphopt.backends": "backends",
    "graphopt.training": "training",
}


def found_packages(root: Path) -> set[str]:
    """Every package below the mapped folders, by its import name."""
    return {
        ".".join([package, *init.parent.relative_to(root / folder).parts])
        for package, folder in FOLDERS.items()
        for init in (root / folder).rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found_packages(ROOT)


def test_a_new_subpackage_is_found(tmp_path: Path) -> None:
    new = tmp_path / "passes" / "quantize" / "observers"
    new.mkdir(parents=True)
    (new / "__init__.py").touch()
    assert found_packages(tmp_path) == {"graphopt.passes.quantize.observers"}


def test_every_python_folder_is_a_package() -> None:
    folders = {file.parent for name in FOLDERS.values() for file in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_mapped_folders_are_the_listed_ones() -> None:
    assert PROJECT["tool"]["setuptools"]["package-dir"] == FOLDERS


def test_top_level_names_stay_unused() -> None:
    assert graphopt.passes.__name__ == "graphopt.passes"
    assert graphopt.backends.__name__ == "graphopt.backends"
    assert not {"passes", "backends"} & sys.modules.keys()


def test_tvm_pair_is_the_pinned_one() -> None:
    pins = dict(line.split("==") for line in PROJECT["project"]["dependencies"] if "==" in line)
    assert {name: metadata.version(name) for name in pins} == pins
    assert set(pins) == {"apache-tvm", "apache-tvm-ffi"}
