"""Convolutions as products: patches times matrices give what ONNX Runtime computes."""

import numpy as np
import pytest

from graphopt.passes.cluster import matrices as module
from graphopt.passes.cluster.matrices import Geometry, Moments, matrices, weights
from tests.conftest import make_model, reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "attributes", "groups"),
    [
        ((8, 6, 3, 3), "pads = [1, 1, 1, 1]", 1),
        ((8, 6, 1, 1), "strides = [2, 2]", 1),
        ((8, 2, 3, 2), "group = 3, pads = [0, 1, 2, 0], strides = [2, 1], dilations = [1, 3]", 3),
        ((6, 1, 3, 3), "group = 6, auto_pad = \"SAME_UPPER\", strides = [2, 2]", 6),
        ((6, 1, 2, 2), "group = 6, auto_pad = \"SAME_LOWER\"", 6),
        ((8, 6, 3, 3), "auto_pad = \"VALID\"", 1),
        ((8, 6, 4), "pads = [3, 1]", 1),
    ],
)  # fmt: skip
def test_patches_times_filters(shape: tuple[int, ...], attributes: str, groups: int) -> None:
    shape = (shape[0] // groups * groups, *shape[1:])
    filters = RNG.standard_normal(shape).astype(np.float32)
    dims = ",".join(["2", "6", *["9"] * (len(shape) - 2)])
    model = make_model(
        f"agraph (float[{dims}] x) => (float[{','.join('ABCD'[: len(shape)])}] y) {{ y = Conv<{attributes}>(x, w) }}",
        18,
        w=filters,
    )
    images = RNG.standard_normal((2, 6, *[9] * (len(shape) - 2))).astype(np.float32)
    [expected] = reference(model, {"x": images})
    rows = Geometry.of(model.graph[0], shape).rows(images)
    found = np.einsum("gnd,gdo->ngo", rows, matrices(filters, 0, groups)).reshape(-1, shape[0])
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, -1).reshape(-1, shape[0]), atol=1e-4)


@pytest.mark.parametrize(("shape", "axis", "groups"), [((6, 2, 3), 0, 3), ((5, 7), 1, 1), ((5, 7), 0, 1)])
def test_matrices_and_back(shape: tuple[int, ...], axis: int, groups: int) -> None:
    array = RNG.standard_normal(shape).astype(np.float32)
    found = matrices(array, axis, groups)
    assert found.shape[::2] == (groups, shape[axis] // groups)
    np.testing.assert_array_equal(weights(found, axis, shape), array)


def test_moments_of_two_batches() -> None:
    batches = RNG.standard_normal((2, 30, 4)).astype(np.float32)
    moments, rows = Moments(Geometry()), batches.reshape(-1, 4).astype(np.float64)
    for batch in batches:
        moments.add(batch)
    assert moments.products is not None
    np.testing.assert_allclose(moments.products[0], rows.T @ rows, atol=1e-4)
    np.testing.assert_allclose(moments.means[0], rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moments.mean_squares[0], np.square(rows).mean(axis=0), atol=1e-6)


def test_of_many_rows_some_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 10)
    assert Geometry().rows(np.zeros((7, 5, 3), np.float32)).shape == (1, 10, 3)


def test_products_of_too_many_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 3)
    moments = Moments(Geometry())
    for _ in range(2):
        moments.add(np.ones((2, 4), np.float32))
    assert moments.products is None
    assert moments.count == 4
