"""If next to ONNX Runtime, with branches that read values from around them."""

import numpy as np
import pytest
import torch

from graphopt.training.executor import TorchModel
from tests.conftest import make_model
from tests.training.executor.harness import check_model, floats

TEXT = """agraph (float[2,3] x, bool c) => (float[2,3] y, float[2,3] z) {
    h = Mul(x, w)
    a, z = If (c) <
        then_branch = yes () => (float[2,3] p, float[2,3] q) { p = Add(h, one) q = Identity(p) },
        else_branch = no () => (float[2,3] p, float[2,3] q) {
            k = Constant<value_float = 3.0>() p = Mul(h, k) q = Sub(p, x)
        }
    >
    y = Relu(a)
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_branches(condition: bool) -> None:
    model = make_model(TEXT, w=np.array([1, -2, 3], np.float32), one=np.float32(1))
    feeds = {"x": floats(2, 3), "c": np.array(condition)}
    check_model(model, feeds)


def test_statistics_move_within_the_branch_that_runs() -> None:
    model = make_model(
        """agraph (float[N,2] x, bool c) => (float[N,2] y) {
            y = If (c) <
                then_branch = yes () => (float[N,2] p) { p = BatchNormalization(x, s, b, m, v) },
                else_branch = no () => (float[N,2] p) { p = Identity(x) }
            >
        }""",
        **{name: np.ones(2, np.float32) for name in "sbmv"},
    )
    module = TorchModel(model, batch_statistics=True).train()
    x = torch.randn(20, 2) + 5
    module({"x": x, "c": torch.tensor(False)})
    torch.testing.assert_close(module.learned()["m"], torch.ones(2))
    module({"x": x, "c": torch.tensor(True)})
    torch.testing.assert_close(module.learned()["m"], 0.9 + 0.1 * x.mean(0))
