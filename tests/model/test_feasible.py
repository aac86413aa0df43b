import numpy as np
import pytest

from graphopt.errors import ModelError, ShapeError
from graphopt.model import normalise
from graphopt.model.feasible import MOST_ELEMENTS, require_feasible
from tests.conftest import make_model

BEYOND = MOST_ELEMENTS + 1


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        f"g (float[{MOST_ELEMENTS}] x) => (float[{MOST_ELEMENTS}] y) {{ y = Relu(x) }}",
        "g (float[0,9] x) => (float[0,9] y) { y = Relu(x) }",
        "g (float[1,3,2,2] x) => (float[1,3,2,2] y) { y = MeanVarianceNormalization(x) }",
        "g (float[4] x) => (float[4] y) { y = com.microsoft.Unheard(x) }",
    ],
)
def test_feasible(text: str) -> None:
    require_feasible(make_model(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (float[2,3] x, float[4,5] w) => (float[2,5] y) { y = MatMul(x, w) }",
            "contradict each other.*MatMul",
        ),
        (
            f"g (float[{BEYOND}] x) => (float[{BEYOND}] y) {{ y = Relu(x) }}",
            f"'x' is too large: {BEYOND} elements",
        ),
    ],
)
def test_shapes(text: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        require_feasible(make_model(text))


def test_a_large_tensor_on_the_way() -> None:
    model = make_model(
        "g (float[65536,1] x) => (float y) { p = MatMul(x, w) y = ReduceMax <keepdims=0> (p) }",
        w=np.zeros((1, 65536), np.float32),
    )
    normalise(model)
    with pytest.raises(ShapeError, match="'p' is too large: 65536 x 65536"):
        require_feasible(model)


@pytest.mark.parametrize(
    "text",
    [
        "g (string[2] x) => (string[2] y) { y = Identity(x) }",
        "g (float[2] x) => (string[2] y) { y = Cast <to=8> (x) }",
        "g (seq(float[2]) x) => (seq(float[2]) y) { y = Identity(x) }",
    ],
)
def test_what_is_no_tensor_of_numbers(text: str) -> None:
    with pytest.raises(ModelError, match="tensors of numbers or booleans"):
        require_feasible(make_model(text))
