"""How long the operations on vectors take that tiles are chosen by, core by core.

Those of Zen 5 are fitted to measurements, and stand for all x86. Those of ARM are what LLVM's scheduling models say, which follow Arm's
Software Optimization Guides of these cores: llvm-mca gives them for two dozen independent `fmla v, by lane` or loads, and for a chain of
accumulations. Nobody has measured how fast ARM's second-level caches bring vectors; tiles there are not chosen by that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """In cycles."""

    multiply: float
    """A multiply-add, one of many."""
    latency: float
    """Until a sum can be added to again."""
    load: float
    """A vector or a scalar from the first-level cache, one of many."""
    far_load: float
    """A vector from the second-level cache."""
    operation: float = 0.0
    """Any operation, one of many; 0 where others are always the limit."""
    in_order: bool = False
    """Whether loads and multiply-adds wait for each other."""

    @property
    def in_flight(self) -> int:
        """Multiply-adds that are under way at once."""
        return round(self.latency / self.multiply)


ZEN5 = Speed(multiply=0.5, latency=4.0, load=0.6, far_load=2.2)
CORTEX_A53 = Speed(multiply=1.0, latency=10.0, load=1.0, far_load=1.0, operation=1 / 2, in_order=True)
CORTEX_A72 = Speed(multiply=1.0, latency=4.0, load=1.0, far_load=1.0, operation=1 / 3)
NEOVERSE_N1 = Speed(multiply=0.5, latency=4.0, load=0.5, far_load=0.6, operation=1 / 3)
"""Cortex-A76 is the same core."""
NEOVERSE_N2 = Speed(multiply=0.5, latency=4.0, load=0.5, far_load=0.6, operation=1 / 5)
"""Neoverse V1 and V2, which do twice as much a cycle, reach no more with tiles of their own."""
