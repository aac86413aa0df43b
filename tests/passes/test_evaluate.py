"""Every operator that is folded gives what ONNX Runtime gives."""

import numpy as np
import pytest

from graphopt.model import edit
from graphopt.passes.evaluate import BY_REFERENCE, FUNCTIONS, evaluate
from tests.conftest import make_model, reference

RNG = np.random.default_rng(0)
F = RNG.standard_normal((2, 3)).astype(np.float32)
G = RNG.standard_normal((2, 3)).astype(np.float32)
POSITIVE = np.abs(F) + np.float32(0.1)
I = np.array([[-7, 7, -8], [5, 0, 9]], np.int64)
J = np.array([[2, -2, 3], [-5, 4, 9]], np.int64)
B = np.array([[True, False, True], [False, False, True]])
C = ~B


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


UNARY = [
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "Identity",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
]
UNARY += ["Sign", "Sin", "Tan", "Tanh", "Atan", "Flatten", "Transpose", "Softmax", "NonZero", "Size"]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]
COMPARE = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]

CASES: list[tuple[str, list[np.ndarray]]] = [
    *((f"{op}(a)", [F]) for op in UNARY),
    *((f"{op}(a, b)", [F, G]) for op in (*BINARY, *COMPARE, "Sum")),
    *((f"{op}(a, b)", [I, J]) for op in (*BINARY, *COMPARE, "Mod")),
    *((f"{op}(a, b)", [B, C]) for op in ("And", "Or", "Xor", "Equal")),
    *((f"{op}<keepdims = 0>(a)", [F]) for op in ("ReduceMax", "ReduceMean")),
    *(
        (f"{op}(a, b)", [F, ints(-1)])
        for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
    ),
    ("ReduceSum<noop_with_empty_axes = 1>(a)", [F]),
    ("ReduceSum(a, b)", [F, ints()]),
    ("BatchNormalization(a, b, b, b, b)", [F, POSITIVE[0]]),
    ("Not(a)", [B]),
    ("Log(a)", [POSITIVE]),
    ("Sqrt(a)", [POSITIVE]),
    ("Pow(a, b)", [POSITIVE, np.array(2, np.int64)]),
    ("Mod<fmod = 1>(a, b)", [F, G]),
    ("Clip(a, b, c)", [F, np.array(-0.5, np.float32), np.array(0.5, np.float32)]),
    ("Clip(a, , b)", [F, np.array(0.5, np.float32)]),
    ("MatMul(a, b)", [F, G.T.copy()]),
    ("Where(a, b, c)", [B, F, G]),
    ("Concat<axis = -1>(a, b)", [F, G]),
    ("Gather<axis = 1>(a, b)", [F, ints(-1, 0)]),
    ("Gather(a, b)", [F, np.array(1, np.int64)]),
    ("Reshape(a, b)", [F, ints(0, -1, 1)]),
    ("Expand(a, b)", [F, ints(2, 1, 1)]),
    ("Tile(a, b)", [F, ints(2, 1)]),
    ("Squeeze(a, b)", [F.reshape(1, 2, 1, 3), ints(0, -2)]),
    ("Squeeze(a)", [F.reshape(1, 2, 1, 3)]),
    ("Unsqueeze(a, b)", [F, ints(0, -1)]),
    ("Range(a, b, c)", [np.array(5, np.int64), np.array(-2, np.int64), np.array(-2, np.int64)]),
    ("Range(a, b, c)", [np.array(0, np.float32), np.array(1, np.float32), np.array(0.3, np.float32)]),
    ("ConstantOfShape(a)", [ints(2, 3)]),
    ("Transpose<perm = [1, 0]>(a)", [F]),
    ("Flatten<axis = 0>(a)", [F]),
    ("Flatten<axis = -1>(a)", [F]),
    ("Flatten<axis = 2>(a)", [F]),
    ("Softmax<axis = 0>(a)", [F]),
    ("Cast<to = 7>(a)", [F]),
    ("Cast<to = 1>(a)", [B]),
    ("Cast<to = 9>(a)", [I]),
    ("Slice(a, b, c)", [F, ints(0, 1), ints(1, 99)]),
    ("Slice(a, b, c, d)", [F, ints(-2), ints(2**63 - 1), ints(-1)]),
    ("Slice(a, b, c, d, e)", [F, ints(-1), ints(-(2**63)), ints(1), ints(-1)]),
    ("Slice(a, b, c, d, e)", [F, ints(2), ints(0), ints(1), ints(-1)]),
    ("Slice(a, b, c, d, e)", [F, ints(0), ints(3), ints(1), ints(2)]),
    ("CumSum(a, b)", [F, np.array(1, np.int64)]),
    ("CumSum<exclusive = 1, reverse = 1>(a, b)", [F, np.array(-1, np.int64)]),
    ("NonZero(a)", [B]),
    ("Size(a)", [F]),
    ('Einsum<equation = "ij,kj->ik">(a, b)', [F, G]),
    ("Trilu(a)", [F]),
    ("Trilu<upper = 0>(a, b)", [F, np.array(1, np.int64)]),
    ("GatherND(a, b)", [F, np.array([[0, 1]], np.int64)]),
    ("GatherElements(a, b)", [F, np.array([[0, 1, 1]], np.int64)]),
    ("ScatterND(a, b, c)", [F, np.array([[1]], np.int64), G[:1]]),
    ("ScatterElements(a, b, c)", [F, np.array([[1, 0, 1]], np.int64), G[:1]]),
    ("ArgMax(a)", [F]),
    ("ArgMin<axis = -1, keepdims = 0>(a)", [F]),
    ("Pad(a, b, c)", [F, ints(1, 0, 0, 2), np.array(7, np.float32)]),
    ("Pad(a, b)", [F, ints(0, 1, 1, 0)]),
    ("DepthToSpace<blocksize = 2>(a)", [np.arange(16, dtype=np.float32).reshape(1, 8, 1, 2)]),
    ("QuantizeLinear(a, b, c)", [F, np.array(0.1, np.float32), np.array(3, np.int8)]),
    ("OneHot(a, b, c)", [ints(0, 2), np.array(3, np.int64), np.array([0, 1], np.float32)]),
]


def constant_model(call: str, arrays: list[np.ndarray]):
    weights = dict(zip("abcde", arrays, strict=False))
    return make_model(f"agraph () => (y) {{ y = {call} }}", **weights)


@pytest.mark.parametrize(("call", "arrays"), CASES, ids=[f"{call} {a[0].dtype}" for call, a in CASES])
def test_agrees_with_onnx_runtime(call: str, arrays: list[np.ndarray]) -> None:
    model = constant_model(call, arrays)
    node = model.graph[0]
    results = evaluate(node, [edit.constant(value) for value in node.inputs])
    assert results is not None
    np.testing.assert_allclose(results[0], reference(model, {})[0], rtol=1e-6, strict=True)


def test_split_gives_every_output() -> None:
    model = make_model("agraph () => (x, y) { x, y = Split<num_outputs = 2>(a) }", a=np.arange(5))
    results = evaluate(model.graph[0], [np.arange(5)])
    assert results is not None
    for result, expected in zip(results, reference(model, {}), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("call", "arrays"),
    [
        ("Div(a, b)", [I, np.zeros_like(I)]),
        ("Cast<to = 7>(a)", [np.array([np.nan, np.inf], np.float32)]),
        ("Cast<to = 2>(a)", [np.array([-1.0, 300.0], np.float32)]),
        ("Reshape(a, b)", [F, ints(4, 4)]),
        ("Gather(a, b)", [F, ints(5)]),
        ("ArgMax<select_last_index = 1>(a)", [F]),
        ("ScatterND(a, b, c)", [F, np.array([[1], [1]], np.int64), G]),
        ("GatherND<batch_dims = 1>(a, b)", [F, np.array([[0], [1]], np.int64)]),
        ('Pad<mode = "reflect">(a, b)', [F, ints(0, 1, 0, 1)]),
        ("Pad(a, b)", [F, ints(0, -1, 0, 0)]),
        ("RandomNormalLike(a)", [F]),
        ("Dropout(a)", [F]),
        ("my.domain.Add(a, b)", [F, G]),
    ],
)
def test_what_cannot_or_must_not_be_computed_is_declined(call: str, arrays: list[np.ndarray]) -> None:
    node = constant_model(call, arrays).graph[0]
    assert evaluate(node, arrays) is None


def test_every_operator_has_a_case() -> None:
    """Keeps the table above complete."""
    tested = {call.split("(")[0].split("<")[0] for call, _ in CASES} | {"Split"}
    assert set(FUNCTIONS) <= tested
    rare = {
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atanh",
        "BitShift",
        "EyeLike",
        "SpaceToDepth",
    }
    assert tested | rare >= BY_REFERENCE
