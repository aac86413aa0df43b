"""What is told of kernels of a GPU that no family of parallel ones takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.backends.compiler import Library
    from graphopt.backends.targets import Target

SLOW_BYTES = 4096
"""Of buffers of a kernel, from which it counts that a single thread reads and writes them."""

NAMED = 3


def slow_kernels(library: Library, target: Target) -> list[str]:
    """A sentence about large kernels of the first variant that run on a single thread, if there are any."""
    slow = [each for each in library.layers if each.get("threads") == 1 and each["bytes"] >= SLOW_BYTES]
    if not slow:
        return []
    named = ", ".join(each["nodes"] or each["kernel"] for each in slow[:NAMED])
    more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
    return [f"{target.name}: run by a single thread of the GPU, and slow: {named}{more}"]
