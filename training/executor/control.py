"""If: one of two graphs."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor
from graphopt.training.executor.program import Program


def captured(node: Node) -> list[str]:
    """What the branches of a node read from around them; its computation takes these behind its inputs."""
    return sorted({name for branch in node.branches.values() for name in branch.needs})


def _choose(learning: bool) -> Maker:
    def make(node: Node) -> Compute:
        names = captured(node)
        branches = {True: node.branches["then_branch"], False: node.branches["else_branch"]}

        def choose(condition: Tensor, *outer: Tensor) -> Sequence[Tensor]:
            branch: Program = branches[bool(condition.item())]
            found = branch.run(dict(zip(names, outer, strict=True)), branch.outputs, learning)
            return [found[name] for name in branch.outputs]

        return choose

    return make


OPERATORS: dict[str, Maker] = {"If": _choose(learning=False)}

WITH_BATCH_STATISTICS: dict[str, Maker] = {"If": _choose(learning=True)}
