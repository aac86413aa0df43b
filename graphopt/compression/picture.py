"""Groups of channels as a picture for Graphviz: layers are boxes, an edge says that one reads channels which another makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import networkx

from graphopt.files import replacing
from graphopt.passes.prune.groups import Group


def group_graph(groups: Sequence[Group]) -> networkx.MultiDiGraph:
    """Nodes are names of layers; edges go from every maker to every reader of a group, with its name and size."""
    graph = networkx.MultiDiGraph()
    for group in groups:
        for maker in dict.fromkeys(place.node.name or "" for place in group.makers):
            for reader in dict.fromkeys(place.node.name or "" for place in group.readers):
                graph.add_edge(maker, reader, group=group.name, size=group.size)
    return graph


def write_picture(groups: Sequence[Group], path: Path) -> None:
    """Write a graph in the DOT language. Raises OutputError."""
    graph = group_graph(groups)
    lines = ["digraph groups {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_quoted(name)};" for name in graph]
    for maker, reader, data in graph.edges(data=True):
        text = _quoted(f"{data['group']}: {data['size']}")
        lines.append(f"  {_quoted(maker)} -> {_quoted(reader)} [label={text}];")
    with replacing(path) as file:
        file.write("\n".join([*lines, "}", ""]).encode())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
