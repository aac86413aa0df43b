"""What this machine offers: its architecture, its CPU features under LLVM's names, and how many CPUs we may use."""

import ctypes
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

_PR_SVE_GET_VL, _PR_SVE_VL_LEN_MASK = 51, 0xFFFF

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}

LINUX_NAMES = {
    "x86_64": {
        "sse3": "pni",
        "lzcnt": "abm",
        "bmi": "bmi1",
        "sahf": "lahf_lm",
        "pclmul": "pclmulqdq",
        "rdrnd": "rdrand",
        "prfchw": "3dnowprefetch",
        "crc32": "sse4_2",
        "sha": "sha_ni",
        "x87": "fpu",
        "tbm": "tbm",
        "64bit": "lm",
    },
    "aarch64": {
        "neon": "asimd",
        "fp-armv8": "fp",
        "dotprod": "asimddp",
        "fullfp16": "asimdhp",
        "lse": "atomics",
        "rdm": "asimdrdm",
        "crc": "crc32",
        "complxnum": "fcma",
        "rcpc": "lrcpc",
        "fp16fml": "asimdfhm",
    },
    "armv7": {"vfp4": "vfpv4", "vfp3": "vfpv3", "hwdiv": "idivt", "hwdiv-arm": "idiva"},
}
"""LLVM feature name -> Linux flag, where they differ by more than punctuation."""


def architecture() -> str:
    """The architecture of this process, as LLVM spells it."""
    machine = platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def system() -> str:
    """`android`, whose C library is not that of other Linux systems, or what Python calls the system: `linux`, say."""
    return "android" if hasattr(sys, "getandroidapilevel") else sys.platform


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str] | None:
    """The flags that Linux reports for the first CPU, `sve256` and the like for vectors of at least so many bits, and `android`
    there; None where it reports none (other systems, emulators)."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if line is None:
        return None
    flags = frozenset(line.group(1).split()) | ({"android"} & {system()})
    return flags | _vector_lengths() if "sve" in flags else flags


def _vector_lengths() -> frozenset[str]:
    """The lengths in bits that scalable vectors of this process have at least."""
    answer = ctypes.CDLL(None).prctl(_PR_SVE_GET_VL)
    bits = 8 * (answer & _PR_SVE_VL_LEN_MASK) if answer >= 0 else 0
    return frozenset(f"sve{length}" for length in range(128, bits + 1, 128))


def missing_features(required: Iterable[str], flags: frozenset[str] | None, arch: str) -> list[str]:
    """The required LLVM features that `flags` lacks; nothing is missing where the flags are unknown."""
    if flags is None:
        return []
    present = {_plain(flag) for flag in flags}
    linux_names = LINUX_NAMES.get(arch, {})
    wanted = {feature: feature.removeprefix("+") for feature in required}
    return sorted(
        feature for feature, name in wanted.items() if _plain(linux_names.get(name, name)) not in present
    )


def _plain(name: str) -> str:
    """A feature name without the punctuation on which LLVM and Linux disagree (avx512vnni, avx512_vnni)."""
    return re.sub(r"[-_.]", "", name.lower())


def default_threads(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The CPUs that this process may run on, or fewer where a cgroup grants less CPU time."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    quota = cgroup_cpus(root, membership)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cgroup_cpus(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """The CPU time, in CPUs, that the cgroup of this process and those around it grant; None without a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    groups = [_Group(*line.split(":", 2)) for line in lines if line.count(":") >= 2]
    limits = [limit for group in groups for limit in group.limits(root)]
    return min(limits, default=None)


class _Group(NamedTuple):
    """A line of /proc/self/cgroup; version 2 has no controllers."""

    hierarchy: str
    controllers: str
    path: str

    def limits(self, root: Path) -> Iterator[float]:
        """The limits of the group and of all groups around it."""
        inner = PurePosixPath(self.path.lstrip("/"))
        for folder in [inner, *inner.parents]:
            if not self.controllers:
                yield from _limit(_read(root / folder / "cpu.max").split())
            elif "cpu" in self.controllers.split(","):
                names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
                yield from _limit([_read(root / "cpu" / folder / name) for name in names])


def _limit(quota_and_period: list[str]) -> list[float]:
    if len(quota_and_period) != 2 or not all(word.isdigit() and int(word) > 0 for word in quota_and_period):
        return []
    quota, period = map(int, quota_and_period)
    return [quota / period]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
