"""Names in C, and what the templates are told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.backends.export.interface import (
    RESERVED,
    TensorFacts,
    c_string,
    describe,
    identifier,
    identifiers,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image", "image"),
        ("input:0", "input_0"),
        ("3d", "t_3d"),
        ("float", "t_float"),
        ("catch", "t_catch"),
        ("graphopt", "t_graphopt"),
        ("workspace", "t_workspace"),
        ("größe", "gr__e"),
        ("//", "tensor"),
        ("", "tensor"),
    ],
)
def test_names_that_c_does_not_allow(name: str, expected: str) -> None:
    assert identifier(name) == expected


@given(st.lists(st.text(max_size=6), max_size=8))
def test_identifiers_are_valid_and_differ(names: list[str]) -> None:
    found = list(identifiers(names))
    assert len(found) == len({name.upper() for name in found}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in found)
    assert not RESERVED & set(found)


@given(st.text(max_size=8))
def test_strings_and_comments_hold_any_name(name: str) -> None:
    found = c_string(name)
    octal = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), found[1:-1])
    assert octal.encode("latin-1") == name.encode("utf-8", "surrogatepass")
    assert found.isascii()
    comment = TensorFacts("t", name, "float32", [1]).comment
    assert "*/" not in comment
    assert comment.isprintable()


def test_functions_of_variants() -> None:
    def variant(size: int) -> dict[str, object]:
        x = {"name": "x", "shape": [size, 2], "dtype": "float32"}
        y = {"name": "x", "shape": [], "dtype": "bool"}
        return {"inputs": [x], "outputs": [y], "workspace_bytes": 64}

    first, second = describe("m", [variant(1), variant(3)], embedded=False)
    assert first.parameters == "const void *weights, const float *x, uint8_t *x_1, void *workspace"
    assert (first.suffix, second.suffix) == ("", "_1")
    assert (second.inputs[0].size, second.inputs[0].nbytes, second.outputs[0].size) == (6, 24, 1)
    assert "x: float32[3, 2]" in second.title
    assert describe("m", [variant(1)], embedded=True)[0].arguments == "m_weights, x, x_1, workspace"
