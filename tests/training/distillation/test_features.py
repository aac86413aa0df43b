"""Which values inside of two models belong together."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.errors import GraphoptError
from graphopt.model import normalise
from graphopt.training.distillation import Goal
from graphopt.training.distillation.features import MOST, match_features
from tests.conftest import make_model
from tests.training.distillation.harness import digits, disturbed, learn, shipped


def deep(blocks: int, channels: int = 4, end: str = "Add") -> ir.Model:
    """Residual blocks, whose ends have names."""
    lines = ["r0 = Relu(x)"]
    for number in range(1, blocks + 1):
        lines += [f"c{number} = Conv<pads = [1, 1, 1, 1]>(r{number - 1}, up)", f"a{number} = Relu(c{number})"]
        lines += [f"d{number} = Conv(a{number}, down)", f"r{number} = {end}(d{number}, r{number - 1})"]
    text = f"agraph (float[N,3,8,8] x) => (float[N,3,8,8] y) {{ {' '.join(lines)} y = Neg(r{blocks}) }}"
    up, down = np.ones((channels, 3, 3, 3), np.float32), np.ones((3, channels, 1, 1), np.float32)
    model = make_model(text, up=up, down=down)
    normalise(model)
    return model


def test_ends_of_blocks_are_matched() -> None:
    assert match_features(deep(3, 2), deep(3), None) == {name: name for name in ("r1", "r2", "r3")}


def test_a_few_are_enough_and_the_last_is_among_them() -> None:
    found = match_features(deep(11), deep(11), None)
    assert len(found) == MOST
    assert list(found)[-1] == "r11"


def test_without_blocks_activations_are_matched_whatever_their_channels() -> None:
    assert list(match_features(deep(2, 2, "Mul"), deep(2, 4, "Mul"), None)) == ["r0", "a1", "a2"]


def test_what_is_chosen_is_taken() -> None:
    assert match_features(deep(1), deep(2), {"a1": "a2"}) == {"a1": "a2"}
    assert match_features(deep(1), deep(2), {}) == {}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [({"q": "a1"}, "inside the student is called 'q'"), ({"a1": "q"}, "inside the teacher is called 'q'")],
)
def test_names_that_there_are_not(chosen: dict[str, str], message: str) -> None:
    with pytest.raises(GraphoptError, match=message):
        match_features(deep(1), deep(1), chosen)


def test_models_that_have_nothing_in_common() -> None:
    other = deep(1)
    for node in other.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"other_{value.name}"
    with pytest.raises(GraphoptError, match="no value inside the student"):
        match_features(deep(1), other, None)


def test_places_have_to_fit() -> None:
    wide = deep(1)
    for node in wide.graph:
        for value in node.outputs:
            value.shape = ir.Shape(["N", 3, 16, 16])
    with pytest.raises(GraphoptError, match="no value inside the student"):
        match_features(deep(1), wide, None)


def test_they_are_learned() -> None:
    teacher = shipped("digits_cnn")
    done = learn(disturbed(teacher), teacher, digits(), Goal(features=None))
    assert [term.kind for term in done.terms] == ["classes", "feature", "feature", "feature"]
    assert done.best > 0
