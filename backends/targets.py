"""The table of targets, and what the rest of the compiler needs to know of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.errors import TargetError

LLVM_OPTIMISATION = 2
"""LLVM's -O level: kernels are scheduled before LLVM sees them, and 3 takes twice the time for the same speed."""

_AVX2 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@dataclass(frozen=True)
class Target:
    """One row: what LLVM is told, which CPU features the artifact demands, and the width of a vector."""

    name: str
    arch: str
    cpu: str
    features: tuple[str, ...]
    lanes: int
    """float32 lanes of a vector register."""
    description: str

    def llvm(self) -> Any:
        """The TVM target."""
        import tvm

        return tvm.target.Target(
            {"kind": "llvm", "mcpu": self.cpu, "num-cores": 1, "opt-level": LLVM_OPTIMISATION}
        )


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "x86-64-v2", "x86_64", "x86-64-v2", ("sse4_1", "sse4_2", "ssse3", "popcnt"), 4, "x86 with SSE4.2"
        ),
        Target("x86-64-v3", "x86_64", "x86-64-v3", _AVX2, 8, "x86 with AVX2 and FMA (2013 on)"),
        Target("x86-64-v4", "x86_64", "x86-64-v4", _AVX512, 16, "x86 with AVX-512"),
    )
}
"""Fixed targets by name, best last. `native` picks the best one that this machine runs, tuned for its CPU."""


def find_target(name: str) -> Target:
    """The target of a name; `native` stands for this machine. Raises TargetError for an unknown one."""
    if name == "native":
        return native()
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}; choose one of native, {', '.join(TARGETS)}")
    return TARGETS[name]


def find_targets(names: str) -> list[Target]:
    """Targets by names that are separated by commas, in the order of the table: best last. Raises TargetError."""
    found = {find_target(name) for name in names.split(",")}
    return [target for target in TARGETS.values() if target in found]


def native() -> Target:
    """The best target of the table that this machine runs."""
    from graphopt_runtime import cpu

    here = cpu.architecture()
    flags = cpu.cpu_flags()
    for target in reversed(list(TARGETS.values())):
        if target.arch == here and not cpu.missing_features(target.features, flags, here):
            return target
    raise TargetError(f"no target of the table runs on this machine ({here}); see `graphopt targets`")


def runs_here(target: Target) -> str | None:
    """Why this machine cannot run code for `target`, or None if it can."""
    from graphopt_runtime import cpu

    here = cpu.architecture()
    if target.arch != here:
        return f"this machine is {here}, the target {target.arch}"
    missing = cpu.missing_features(target.features, cpu.cpu_flags(), here)
    return f"this machine lacks {', '.join(missing)}" if missing else None
