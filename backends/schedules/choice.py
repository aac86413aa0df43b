"""Who chooses schedules: the rules, or measurements where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from graphopt.backends.kernels.core import Core
from graphopt.backends.schedules import byte_conv, byte_gemm, conv, gemm, tensor_convolution, tensor_product
from graphopt.backends.schedules.standalone import Standalone
from graphopt.backends.schedules.workload import Config, Workload

Usable = Callable[[Config], bool]


class Family(Protocol):
    """A module of this folder."""

    FAMILY: str

    def candidates(self, workload: Workload, core: Core) -> list[tuple[float, Config]]:
        """Estimated cycles and schedule, that of the rules first, and the fastest before the others."""
        ...

    def standalone(self, workload: Workload, config: Config, core: Core) -> Standalone:
        """A program of the kernel alone."""
        ...


FAMILIES: Mapping[str, Family] = {
    module.FAMILY: module for module in (byte_conv, byte_gemm, conv, gemm, tensor_convolution, tensor_product)
}


def is_candidate(workload: Workload, core: Core, config: Config) -> bool:
    """Whether a schedule is one of those that its family knows, as those in a file need not be."""
    return any(config == known for _, known in FAMILIES[workload.family].candidates(workload, core))


class Schedules(Protocol):
    """Chooses."""

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        """The schedule for a workload, one that is `usable`."""
        ...


class Rules:
    """Chooses what the model of the core estimates to be fastest."""

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        found = FAMILIES[workload.family].candidates(workload, core)
        return next(config for _, config in found if usable(config))


class Recorder:
    """Chooses by rules, and counts the workloads."""

    def __init__(self) -> None:
        self.workloads: Counter[Workload] = Counter()

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        self.workloads[workload] += 1
        return Rules().choose(workload, core, usable)


class Measured:
    """Chooses what has been measured to be fastest, by rules where nothing has; `missing` are the latter workloads."""

    def __init__(self, fastest: Mapping[Workload, Sequence[Config]]) -> None:
        self._fastest = fastest
        self.missing: list[Workload] = []

    def choose(self, workload: Workload, core: Core, usable: Usable) -> Config:
        found = next((config for config in self._fastest.get(workload, ()) if usable(config)), None)
        if found is not None:
            return found
        if workload not in self.missing:
            self.missing.append(workload)
        return Rules().choose(workload, core, usable)
