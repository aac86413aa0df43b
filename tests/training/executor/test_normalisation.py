"""Normalisations next to ONNX Runtime, and the statistics of batches."""

import numpy as np
import pytest
import torch

from graphopt.training.executor import TorchModel
from tests.conftest import make_model
from tests.training.executor.harness import Case, case, check, floats, positive

CASES = [
    case("BatchNormalization", floats(2, 3, 4, 5), floats(3), floats(3), floats(3), positive(3)),
    case("BatchNormalization", floats(4, 3), floats(3), floats(3), floats(3), positive(3), epsilon=0.1),
    case("InstanceNormalization", floats(2, 3, 4, 5), floats(3), floats(3)),
    case("InstanceNormalization", floats(2, 3, 7), floats(3), floats(3), epsilon=0.01),
    case("LayerNormalization", floats(2, 3, 4), floats(4), floats(4)),
    case("LayerNormalization", floats(2, 3, 4), floats(3, 4), axis=1, epsilon=0.1),
    case("GroupNormalization", floats(2, 6, 5), floats(6), floats(6), opset=21, num_groups=3),
    case("GroupNormalization", floats(2, 6, 5), floats(3), floats(3), opset=18, num_groups=3),
    case("MeanVarianceNormalization", floats(2, 3, 4, 5)),
    case("MeanVarianceNormalization", floats(2, 3, 4, 5), axes=[1, 2, 3]),
    case("LpNormalization", floats(3, 5), axis=0),
    case("LpNormalization", floats(3, 5), p=1),
    case("LRN", floats(2, 7, 3, 4), size=3),
    case("LRN", floats(2, 7, 3, 4), size=5, alpha=0.1, beta=0.5, bias=2.0),
    case("RMSNormalization", floats(2, 3, 4), floats(4), opset=23),
]


@pytest.mark.parametrize("each", CASES, ids=str)
def test_next_to_onnx_runtime(each: Case) -> None:
    check(each)


def batch_norm() -> TorchModel:
    model = make_model(
        "agraph (float[N,3] x) => (float[N,3] y) { y = BatchNormalization<momentum = 0.8>(x, s, b, m, v) }",
        s=np.ones(3, np.float32),
        b=np.zeros(3, np.float32),
        m=np.array([1, 2, 3], np.float32),
        v=np.full(3, 4, np.float32),
    )
    return TorchModel(model, batch_statistics=True)


def test_statistics_of_batches_are_used_in_training_only() -> None:
    module, x = batch_norm(), torch.randn(50, 3) * 3 + 1
    module.eval()
    torch.testing.assert_close(module({"x": x})["y"], (x - torch.tensor([1.0, 2, 3])) / 2, atol=1e-4, rtol=0)
    module.train()
    result = module({"x": x})["y"]
    torch.testing.assert_close(result.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.var(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    expected = 0.8 * torch.tensor([1.0, 2, 3]) + 0.2 * x.mean(0)
    torch.testing.assert_close(module.learned()["m"], expected)


def test_statistics_stay_frozen_by_default() -> None:
    model = case("BatchNormalization", floats(4, 3), *(floats(3),) * 3, positive(3)).model()
    module = TorchModel(model).train()
    before = module({"x0": torch.ones(2, 3)})["y0"]
    module({"x0": torch.randn(9, 3)})
    torch.testing.assert_close(module({"x0": torch.ones(2, 3)})["y0"], before)
