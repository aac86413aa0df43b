"""Groups of channels in the DOT language."""

import re
from pathlib import Path

import numpy as np
import pytest

from graphopt.compression.picture import group_graph, write_picture
from graphopt.compression.pruning import groups
from graphopt.errors import OutputError
from graphopt.passes.prune.groups import Group
from tests.conftest import make_model


def chain(first: str = "first", last: str = "last") -> list[Group]:
    """The groups of three products, the second of which has the name `middle`."""
    text = "agraph (float[N,3] x) => (float[N,4] y) { a = MatMul(x, u) b = MatMul(a, v) y = MatMul(b, w) }"
    shapes = {"u": (3, 8), "v": (8, 6), "w": (6, 4)}
    model = make_model(text, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    for node, name in zip(model.graph, (first, "middle", last), strict=True):
        node.name = name
    return groups(model)[0]


def test_edges_go_from_what_makes_channels_to_what_reads_them() -> None:
    graph = group_graph(chain())
    assert [(maker, reader, data["size"]) for maker, reader, data in graph.edges(data=True)] == [
        ("first", "middle", 8),
        ("middle", "last", 6),
    ]


def test_every_layer_is_written_once(tmp_path: Path) -> None:
    write_picture(chain(), path := tmp_path / "groups.dot")
    lines = path.read_text().splitlines()
    assert lines[0] == "digraph groups {"
    assert lines[-1] == "}"
    assert [line for line in lines if re.fullmatch(r'  "\w+";', line)] == [
        '  "first";',
        '  "middle";',
        '  "last";',
    ]
    assert '  "first" -> "middle" [label="first: 8"];' in lines


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("a\\", r'"a\\"'),
        ("/blocks.0/conv; } x -> y", '"/blocks.0/conv; } x -> y"'),
        ("größe", '"größe"'),
    ],
)
def test_names_are_quoted(name: str, written: str, tmp_path: Path) -> None:
    write_picture(chain(first=name), path := tmp_path / "groups.dot")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert f"  {written};" in lines
    assert f'  {written} -> "middle" [label={written[:-1]}: 8"];' in lines


def test_no_groups_are_an_empty_picture(tmp_path: Path) -> None:
    write_picture([], path := tmp_path / "groups.dot")
    assert "->" not in path.read_text()


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_picture(chain(), tmp_path / "none" / "groups.dot")
