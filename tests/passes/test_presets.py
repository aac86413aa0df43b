"""The registry and the presets hold together."""

import pytest

from graphopt.passes import PASSES, PRESETS, preset
from graphopt.rewriting.pipeline import run
from tests.conftest import make_model, ops


def test_passes_are_registered_under_their_names() -> None:
    assert all(each.name == name for name, each in PASSES.items())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_made_of_registered_passes(name: str) -> None:
    assert {each.name for each in PRESETS[name]} <= set(PASSES)


def test_no_optimisation_leaves_the_model_alone() -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }")
    assert not run(model, preset("O0")).modified
    assert ops(model) == {"Identity": 1, "Relu": 1}


@pytest.mark.parametrize("name", ["O1", "O2", "O3"])
def test_the_other_presets_simplify(name: str) -> None:
    model = make_model("agraph (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }")
    assert run(model, preset(name)).modified
    assert ops(model) == {"Relu": 1}


def test_an_unknown_preset_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        preset("O9")
