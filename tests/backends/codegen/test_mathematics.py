"""Errors of the elementary functions, in units in the last place, against numpy in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from graphopt.backends.codegen import mathematics, power, trigonometry
from tests.backends.codegen.harness import Scalar, evaluate
from tests.conftest import make_model, reference

SIZE = 1 << 16
EDGES = np.float32(
    [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 1e-45, -1e-45, 1e-38, -1e-38, 88.7, 88.8, -87.3, -103.9, -104.1]
)

Reference = Callable[[np.ndarray], np.ndarray]

_erf = np.vectorize(math.erf, otypes=[float])

# Function -> reference, range of the argument, largest error in ulp.
BOUNDS: dict[str, tuple[Reference, float, float, float]] = {
    "Acos": (np.arccos, -1, 1, 2),
    "Acosh": (np.arccosh, 1, 100, 3),
    "Asin": (np.arcsin, -1, 1, 4),
    "Asinh": (np.arcsinh, -100, 100, 3),
    "Atan": (np.arctan, -20, 20, 2),
    "Atanh": (np.arctanh, -1, 1, 3),
    "Cos": (np.cos, -1e5, 1e5, 2),
    "Cosh": (np.cosh, -89, 89, 3),
    "Erf": (_erf, -5, 5, 3),
    "Exp": (np.exp, -104, 89, 1),
    "Log": (np.log, 1e-40, 1e3, 1),
    "Log1p": (np.log1p, -1, 10, 2),
    "Sin": (np.sin, -1e5, 1e5, 2),
    "Sinh": (np.sinh, -89, 89, 4),
    "Tan": (np.tan, -1e3, 1e3, 3),
    "Tanh": (np.tanh, -10, 10, 2),
}
FUNCTIONS = {**mathematics.FUNCTIONS, **trigonometry.FUNCTIONS, "Log1p": mathematics.log1p}


def sample(low: float, high: float) -> np.ndarray:
    """Random arguments, small ones down to denormals, and the edges of the format."""
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, SIZE).astype(np.float32)
    tiny = rng.choice([-1, 1], SIZE // 8) * np.exp(rng.uniform(np.log(1e-44), 0, SIZE // 8))
    x[: SIZE // 8] = np.clip(tiny, low, high)
    x[-EDGES.size :] = EDGES
    return x


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """The distance in spacings of float32; 0 where both are NaN or the same infinity, infinite where only one is."""
    rounded = want.astype(np.float32)
    error = np.abs(got - want) / np.spacing(np.abs(rounded)).astype(np.float64)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, 0, np.nan_to_num(error, nan=np.inf))


@pytest.fixture(scope="module")
def results() -> dict[str, np.ndarray]:
    """Every function of the table over its sample, compiled together."""
    arrays = [sample(low, high) for _, low, high, _ in BOUNDS.values()]
    functions = {name: _of_argument(FUNCTIONS[name], i) for i, name in enumerate(BOUNDS)}
    return evaluate(functions, *arrays)


def _of_argument(function: mathematics.Function, position: int) -> Scalar:
    return lambda k, *elements: function(k, elements[position])


@pytest.mark.parametrize("name", BOUNDS)
@np.errstate(all="ignore")
def test_error_in_ulps(name: str, results: dict[str, np.ndarray]) -> None:
    reference, low, high, bound = BOUNDS[name]
    x = sample(low, high)
    error = ulps(results[name], reference(x.astype(np.float64)))
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{error[worst]} ulp at {x[worst]!r}"


@np.errstate(all="ignore")
def test_softplus_absolutely_and_relatively() -> None:
    """Below the normal range it keeps only the size of the smallest normal number."""
    x = sample(-100, 100)
    got = evaluate({"Softplus": mathematics.softplus}, x)["Softplus"]
    np.testing.assert_allclose(got, np.logaddexp(0, x.astype(np.float64)), rtol=4e-7, atol=2e-38)


@np.errstate(all="ignore")
def test_sigmoid_absolutely_and_as_onnx_runtime() -> None:
    """Equal to ONNX Runtime's where sigmoid is small, so that a lone probability can be compared with it."""
    x = sample(-30, 30)
    got = evaluate({"Sigmoid": mathematics.sigmoid}, x)["Sigmoid"]
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=0, atol=2e-7)
    [theirs] = reference(
        make_model(f"agraph (float[{x.size}] x) => (float[{x.size}] y) {{ y = Sigmoid(x) }}"), {"x": x}
    )
    small = theirs < 1e-3
    np.testing.assert_allclose(got[small], theirs[small], rtol=0, atol=1e-9)
    assert got[~np.isnan(got)].min() >= 0
    assert got[~np.isnan(got)].max() <= 1


@np.errstate(all="ignore")
def test_power() -> None:
    """Within half an ulp and a little, with the special cases of C."""
    rng = np.random.default_rng(1)
    x = np.exp(rng.uniform(-20, 20, SIZE)).astype(np.float32)
    y = rng.uniform(-8, 8, SIZE).astype(np.float32)
    special = np.float32(
        [0, -0.0, 1, -1, 2, -2, np.inf, -np.inf, np.nan, 3, -3, 0.5, -0.5, 1e-45, 3e38, 1e30]
    )
    grid = np.array(np.meshgrid(special, special)).reshape(2, -1)
    x[: grid.shape[1]], y[: grid.shape[1]] = grid
    got = evaluate({"Pow": power.power}, x, y)["Pow"]
    assert ulps(got, np.power(x.astype(np.float64), y.astype(np.float64))).max() < 0.501


@np.errstate(all="ignore")
def test_nan_tests_survive_optimisation() -> None:
    """TIR folds x != x, and its != is false for NaN."""
    from tvm import tirx

    x = sample(-2, 2)
    got = evaluate(
        {
            "nan": lambda k, x: tirx.Cast("int32", mathematics.is_nan(x)),
            "finite": lambda k, x: tirx.Cast("int32", mathematics.is_finite(x)),
            "nonzero": lambda k, x: tirx.Cast("int32", mathematics.is_nonzero(x)),
            "difference": lambda k, x: mathematics.opaque(x) - mathematics.opaque(x, "uint"),
        },
        x,
    )
    np.testing.assert_array_equal(got["nan"], np.isnan(x))
    np.testing.assert_array_equal(got["finite"], np.isfinite(x))
    np.testing.assert_array_equal(got["nonzero"], x != 0)
    np.testing.assert_array_equal(got["difference"], x - x)


def test_half_precision_is_rounded_once() -> None:
    x = np.linspace(-8, 8, 1024).astype(np.float16)
    got = evaluate({"Exp": mathematics.exp, "Tanh": mathematics.tanh}, x)
    wide = x.astype(np.float64)
    np.testing.assert_array_equal(got["Exp"], np.exp(wide).astype(np.float16))
    np.testing.assert_allclose(got["Tanh"], np.tanh(wide).astype(np.float16), rtol=1e-3)
