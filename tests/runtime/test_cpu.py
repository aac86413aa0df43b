"""Architecture, CPU features and the number of threads."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphopt_runtime import cpu


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64"), ("armv7l", "armv7")],
)
def test_architectures_have_one_spelling(monkeypatch: pytest.MonkeyPatch, machine: str, arch: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert cpu.architecture() == arch


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor: 0\nflags\t\t: fpu avx2\nflags : other\n", {"fpu", "avx2"}),
        ("Features\t: fp asimd\n", {"fp", "asimd"}),
        ("model name: emulator\n", None),
    ],
)
def test_flags_come_from_the_first_cpu(tmp_path: Path, text: str, flags: set[str] | None) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu.cpu_flags(path) == (None if flags is None else frozenset(flags))
    assert cpu.cpu_flags(tmp_path / "nowhere") is None


def test_android_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for it needs its C library, and other code another one."""
    (tmp_path / "cpuinfo").write_text("Features: fp asimd\n")
    assert cpu.system() == sys.platform
    monkeypatch.setattr(sys, "getandroidapilevel", lambda: 29, raising=False)
    assert cpu.system() == "android"
    assert cpu.cpu_flags(tmp_path / "cpuinfo") == {"fp", "asimd", "android"}


@pytest.mark.parametrize(
    ("arch", "required", "flags", "missing"),
    [
        ("x86_64", ["sse3", "sse4.2", "avx512vnni", "bmi", "+fma"], "pni sse4_2 avx512_vnni bmi1 fma", []),
        ("x86_64", ["avx512vnni", "avx512bf16"], "avx512_vnni", ["avx512bf16"]),
        ("x86_64", ["avx512vnni", "avx512bf16"], "avx512_vnni avx512_bf16", []),
        ("x86_64", ["avx512f", "avx2"], "avx2", ["avx512f"]),
        ("x86_64", ["amx-int8"], "amx_int8", []),
        ("aarch64", ["neon", "dotprod", "fullfp16", "i8mm"], "asimd asimddp asimdhp", ["i8mm"]),
        ("armv7", ["vfp4", "neon"], "neon vfpv4", []),
    ],
)
def test_llvm_names_are_found_under_their_linux_names(
    arch: str, required: list[str], flags: str, missing: list[str]
) -> None:
    assert cpu.missing_features(required, frozenset(flags.split()), arch) == missing


def test_unknown_flags_hold_nothing_against_a_feature() -> None:
    assert cpu.missing_features(["avx2"], None, "x86_64") == []


V1 = "4:memory:/\n5:cpu,cpuacct:/a/b\n"
V2 = "0::/a/b\n"


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        (V2, {"cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000", "cpu.max": "90000 100000"}, 0.5),
        (V2, {"a/b/cpu.max": "max 100000\n"}, None),
        (V2, {"other/cpu.max": "50000 100000\n"}, None),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "50000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu.max": "50000 100000"}, None),
        ("nonsense\n", {"cpu.max": "50000 100000"}, None),
        (None, {"cpu.max": "50000 100000"}, None),
    ],
)
def test_cgroups_of_both_versions_limit_the_cpus(
    tmp_path: Path, membership: str | None, files: dict[str, str], cpus: float | None
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert cpu.cgroup_cpus(tmp_path, tmp_path / "membership") == cpus


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 1", 8), ("250000 100000", 3), ("1000 100000", 1), ("9900000 100000", 8)]
)
def test_threads_are_the_cpus_that_we_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert cpu.default_threads(tmp_path, tmp_path / "membership") == threads


@pytest.mark.parametrize(
    ("answer", "lengths"), [(16, {"sve128"}), (1 << 17 | 32, {"sve128", "sve256"}), (-1, set())]
)
def test_lengths_of_scalable_vectors(
    answer: int, lengths: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux answers with the bytes of a vector, and flags above them."""
    path = tmp_path / "cpuinfo"
    path.write_text("Features\t: asimd sve\n")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(prctl=lambda option: answer))
    assert cpu.cpu_flags(path) == {"asimd", "sve"} | lengths
