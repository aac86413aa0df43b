"""Who runs the iterations of the outermost loop of a kernel."""

from __future__ import annotations

BALANCED = 16
"""Times the least work of two threads from which it pays to hand out iterations one by one: that costs some tenths of a
microsecond, and keeps a thread that the system has held up from being waited for."""


def loop_kind(work: float, least: float) -> str:
    """The kind of loop for some amount of work, of which threads pay from `least` on."""
    if work < least:
        return "independent"
    return "parallel" if work < BALANCED * least else "balanced"
