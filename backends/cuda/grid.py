"""Loops that become launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Team:
    """What the body of a grid has asked for: a team of `threads`, the number of each of which is `variable`, with `shared` bytes of large
    memory. It `meets` where it has shared memory or barriers; `cluster` neighbouring ones see each other's memory."""

    variable: Any = None
    threads: int = 0
    shared: int = 0
    meets: bool = False
    cluster: int = 1


@dataclass(frozen=True)
class Grid:
    """An outermost loop of independent iterations. With a `team`, the variable of its threads, blocks of `threads` share each, and
    `shared` bytes of memory."""

    variable: Any
    extent: int
    statements: list[Any]
    team: Any
    threads: int
    shared: int = 0
    is_apart: bool = True
    """Whether threads of a team meet in shared memory or at barriers, so that a block is one team."""
    cluster: int = 1
    """Neighbouring blocks that see each other's shared memory."""
