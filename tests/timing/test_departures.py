"""Which tensor departs first, and what becomes visible for that."""

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.comparison import MISSING, Comparison
from graphopt.cli import report
from graphopt.model import normalise
from graphopt.timing.bench import Benchmark, Measurement
from graphopt.timing.departures import departures, expose_tensors
from tests.conftest import make_model, reference

MODEL = """g (float[2,3] x) => (float[2,3] y, float[2,3] x) {
    a = Relu(x)
    b = Exp(a)
    y = Sub(b, a)
}"""


def model() -> ir.Model:
    made = make_model(MODEL)
    normalise(made)
    return made


def difference(name: str, error: float) -> Comparison:
    return Comparison(name, "float32", error / 10, error, 1e-4)


def test_exposed_tensors_come_in_execution_order() -> None:
    original = model()
    exposed = expose_tensors(original)
    assert [value.name for value in exposed.graph.outputs] == ["a", "b", "y", "x"]
    assert [value.name for value in original.graph.outputs] == ["y", "x"]
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    a, b, y, same = reference(exposed, {"x": x})
    np.testing.assert_array_equal(a, np.maximum(x, 0))
    np.testing.assert_allclose(y, b - a, rtol=1e-6)
    np.testing.assert_array_equal(same, x)


def test_the_first_departure_and_the_largest_difference() -> None:
    found = [difference("a", 1e-6), difference("b", 3e-4), difference("y", 2e-3)]
    nothing = Comparison("a", "float32", float("inf"), float("inf"), 1e-4, MISSING)
    measured = Benchmark(
        "m",
        1,
        1,
        {
            "good": Measurement(comparisons=(difference("a", 1e-6), difference("b", 2e-6))),
            "bad": Measurement(comparisons=tuple(found)),
            "merging": Measurement(comparisons=(nothing, *found[1:])),
            "gone": Measurement(error="died"),
        },
    )
    result = departures("m", model(), measured)
    good, bad = result.backends["good"], result.backends["bad"]
    assert (good.first, good.largest) == (None, difference("b", 2e-6))
    assert (bad.first, bad.largest) == (found[1], found[2])
    assert (result.backends["merging"].first, result.backends["merging"].hidden) == (found[1], ["a"])
    assert "(Exp)" in result.nodes["b"]
    content = result.to_json()
    assert content["bad"]["first"] == "b"
    assert [each["within_tolerance"] for each in content["bad"]["tensors"]] == [True, False, False]
    assert content["gone"] == {"error": "died"}
    rows = list(zip(*(column.cells for column in report.departure_table(result).columns), strict=True))
    assert [row[0] for row in rows] == ["good", "bad", "merging", "gone"]
    assert rows[0][1] == "none"
    assert "b of" in str(rows[1][1])
    assert "died" in rows[3][1]
