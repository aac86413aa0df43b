"""What a schedule is chosen for: the family of kernels and the extents that decide how fast its variants are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Config = Mapping[str, int | str]
"""One variant of a kernel: parameter -> value."""


@dataclass(frozen=True)
class Workload:
    """`str()` gives the key under which databases know it, such as `gemm batch=1 m=128 n=384 k=384 packed=1`."""

    family: str
    facts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, family: str, facts: Mapping[str, int]) -> Workload:
        return cls(family, tuple((name, int(value)) for name, value in facts.items()))

    @classmethod
    def parse(cls, key: str) -> Workload:
        """The workload of a key."""
        family, *facts = key.split()
        pairs = (fact.split("=") for fact in facts)
        return cls(family, tuple((name, int(value)) for name, value in pairs))

    def __getitem__(self, name: str) -> int:
        return dict(self.facts)[name]

    def __str__(self) -> str:
        return " ".join([self.family, *(f"{name}={value}" for name, value in self.facts)])
