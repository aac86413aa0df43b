"""Shapes are inferred, what depends on them becomes constant, and free dimensions are left free."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.model import bind_dims, edit, normalise
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.shapes import Shapes
from graphopt.rewriting.pipeline import Context
from tests.conftest import apply_and_check, make_model, ops


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


FLATTEN = """agraph (float[N,3,4] x) => (float[N,12] y) {
    s = Shape(x) n = Gather(s, zero) u = Unsqueeze(n, axis) t = Concat<axis = 0>(u, rest) y = Reshape(x, t) }"""
FLATTEN_WEIGHTS = {"zero": np.array(0), "axis": ints(0), "rest": ints(-1)}


def shaped(text: str, /, dims: dict[str, int] | None = None, **weights: np.ndarray) -> ir.Model:
    model = make_model(text, **weights)
    bind_dims(model, dims or {})
    normalise(model)
    return model


def target(model: ir.Model, op: str) -> list[int] | None:
    node = next(node for node in model.graph if node.op_type == op)
    array = edit.constant(node.inputs[1])
    return None if array is None else array.tolist()


def test_a_reshape_target_becomes_constant_although_the_batch_is_free() -> None:
    model = shaped(FLATTEN, **FLATTEN_WEIGHTS)
    apply_and_check(Shapes(), model)
    Cleanup().apply(model, Context())
    assert ops(model) == {"Reshape": 1}
    assert target(model, "Reshape") == [0, -1]


def test_a_reshape_target_becomes_constant_with_fixed_dimensions() -> None:
    model = shaped(FLATTEN, {"N": 5}, **FLATTEN_WEIGHTS)
    apply_and_check(Shapes(), model)
    assert ops(model) == {"Reshape": 1}
    assert target(model, "Reshape") == [5, -1]


def test_two_dimensions_that_are_no_copies_stay_computed() -> None:
    model = shaped(
        """agraph (float[A,B] x) => (float[B,A] y) {
        s = Shape(x) a = Gather(s, zero) b = Gather(s, one) u = Unsqueeze(a, zero) v = Unsqueeze(b, zero)
        t = Concat<axis = 0>(v, u) y = Reshape(x, t) }""",
        zero=ints(0)[0],
        one=ints(1)[0],
    )
    before = ops(model)
    Shapes().apply(model, Context())
    assert target(model, "Reshape") is None
    assert ops(model) == before


def test_a_product_of_free_dimensions_is_minus_one() -> None:
    model = shaped(
        """agraph (float[A,B,8] x) => (float[C,8] y) {
        s = Shape<end = 2>(x) p = ReduceProd(s) t = Concat<axis = 0>(p, eight) y = Reshape(x, t) }""",
        eight=ints(8),
    )
    apply_and_check(Shapes(), model)
    assert target(model, "Reshape") == [-1, 8]


def test_a_free_dimension_is_copied_instead_of_allowing_zero() -> None:
    model = shaped(
        """agraph (float[N,M,6] x) => (float[N,M,3,2] y) {
        s = Shape<end = 2>(x) t = Concat<axis = 0>(s, rest) y = Reshape<allowzero = 1>(x, t) }""",
        rest=ints(-1, 2),
    )
    apply_and_check(Shapes(), model)
    assert target(model, "Reshape") == [0, 0, -1, 2]
    assert "allowzero" not in next(node for node in model.graph if node.op_type == "Reshape").attributes


def test_a_zero_that_is_a_size_keeps_its_meaning() -> None:
    model = shaped(
        """agraph (float[N,0] x) => (float[N,0,3] y) {
        s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, rest) y = Reshape<allowzero = 1>(x, t) }""",
        zero=ints(0),
        rest=ints(0, 3),
    )
    Shapes().apply(model, Context())
    assert target(model, "Reshape") is None


def test_expand_to_its_own_free_size_takes_ones() -> None:
    model = shaped(
        """agraph (float[N,1] x) => (float[N,7] y) {
        s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, rest) y = Expand(x, t) }""",
        zero=ints(0),
        rest=ints(7),
    )
    apply_and_check(Shapes(), model)
    assert target(model, "Expand") == [1, 7]
    assert model.graph.outputs[0].shape == ["N", 7]


def test_expand_to_the_size_of_another_tensor_stays() -> None:
    model = shaped("agraph (float[1,3] x, float[N,3] z) => (float[N,3] y) { s = Shape(z) y = Expand(x, s) }")
    Shapes().apply(model, Context())
    assert target(model, "Expand") is None
    assert model.graph[1].outputs[0].shape == ["N", 3]


def test_exporters_expand_idiom_is_resolved() -> None:
    """Where(Equal(shape, -1), ones, shape): a size is never -1."""
    model = shaped(
        """agraph (float[N,1] x) => (float[N,4] y) {
        s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, rest) k = Shape(t) o = ConstantOfShape<value = one>(k)
        m = Mul(o, minus) e = Equal(t, m) w = Where(e, o, t) y = Expand(x, w) }""".replace(
            "<value = one>", "<value = int64[1] {1}>"
        ),
        zero=ints(0),
        rest=ints(4),
        minus=ints(-1)[0],
    )
    apply_and_check(Shapes(), model)
    assert target(model, "Expand") == [1, 4]


def test_arithmetic_on_known_dimensions() -> None:
    model = shaped(
        """agraph (float[7,3] x) => (float[3,3] y) {
        s = Shape(x) n = Gather(s, zero) h = Div(n, two) y = Slice(x, zero, h) }""",
        zero=ints(0),
        two=ints(2),
    )
    apply_and_check(Shapes(), model)
    assert ops(model) == {"Slice": 1}


def test_range_over_a_known_size_is_folded() -> None:
    model = shaped(
        """agraph (int64[3] x) => (int64[3] y) {
        n = Size(x) r = Range(zero, n, one) y = Add(x, r) }""",
        zero=np.array(0),
        one=np.array(1),
    )
    apply_and_check(Shapes(), model)
    assert ops(model) == {"Add": 1}


def test_shapes_that_are_outputs_keep_their_names() -> None:
    model = shaped("agraph (float[2,3] x) => (int64[2] y) { y = Shape(x) }")
    apply_and_check(Shapes(), model)
    assert ops(model) == {"Identity": 1}
    assert model.graph.outputs[0].name == "y"


def test_subgraphs_see_the_shapes_around_them() -> None:
    model = shaped(
        """agraph (bool c, float[2,6] x) => (float[3,4] r) { n = Neg(x)
        r = If(c) <then_branch = t () => (float[3,4] a) { a = Reshape(n, s) },
                   else_branch = e () => (float[3,4] b) { d = Shape(n) p = ReduceProd(d) q = Div(p, s) b = Reshape(x, s) }> }""",
        s=ints(3, 4),
    )
    model.graph[1].outputs[0].shape = None
    apply_and_check(Shapes(), model)
    assert "Shape" not in ops(model)
    assert model.graph.outputs[0].shape == [3, 4]


def test_branches_of_different_shapes_leave_the_result_free() -> None:
    model = shaped(
        """agraph (bool c, float[2] x) => (float[M] r) {
        r = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                   else_branch = e () => (float[4] b) { b = Concat<axis = 0>(x, x) }> }"""
    )
    Shapes().apply(model, Context())
    assert not model.graph.outputs[0].shape.is_static()


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        ("QLinearAdd(x, s, p, z, s, p, s, p)", [2, 4, 6, 6]),
        ("QLinearMul(z, s, p, x, s, p, s, p)", [2, 4, 6, 6]),
        ("QLinearSoftmax(x, s, p, s, p)", [2, 4, 6, 6]),
        ("QLinearGlobalAveragePool(x, s, p, s, p)", [2, 4, 1, 1]),
        ("QLinearGlobalAveragePool<channels_last = 1>(x, s, p, s, p)", [2, 1, 1, 6]),
        ("QLinearAveragePool<kernel_shape = [3, 2], strides = [2, 1]>(x, s, p, s, p)", [2, 4, 2, 5]),
        ("QGemm<transB = 1>(m, s, p, w, s, p, , s, p)", [5, 7]),
        ("QuantizeLinear(f, s, p)", [2, 3]),
        ("QuantizeLinear(f, s)", [2, 3]),
    ],
)
def test_quantized_operators_of_onnx_runtime_have_shapes(call: str, shape: list[int]) -> None:
    model = shaped(
        f"""agraph (uint8[2,4,6,6] x, uint8[6] z, uint8[5,3] m, uint8[7,3] w, float[2,3] f) => (float y) {{
        a = com.microsoft.{call} b = com.microsoft.DequantizeLinear(a, s, p) y = ReduceMax<keepdims = 0>(b) }}""",
        s=np.array(0.5, np.float32),
        p=np.array(0, np.uint8),
    )
    Shapes().apply(model, Context())
    quantised, real = (node.outputs[0] for node in list(model.graph)[:2])
    assert (quantised.dtype, quantised.shape) == (ir.DataType.UINT8, shape)
    assert (real.dtype, real.shape) == (ir.DataType.FLOAT, shape)


def test_a_quantized_product_without_output_parameters_is_float() -> None:
    model = shaped(
        "agraph (uint8[5,3] m, uint8[3,7] w) => (float[5,7] y) { a = com.microsoft.QGemm(m, s, p, w, s, p) y = Neg(a) }",
        s=np.array(0.5, np.float32),
        p=np.array(0, np.uint8),
    )
    Shapes().apply(model, Context())
    value = model.graph[0].outputs[0]
    assert (value.dtype, value.shape) == (ir.DataType.FLOAT, [5, 7])


SIZES = """agraph (float[N,T] x, float[{}] z) => (float[N,T] y) {{
    s = Shape(x) a = Gather(s, zero) b = Gather(s, one) u = Unsqueeze(a, axis) v = Unsqueeze(b, axis)
    c = Concat<axis = 0>(u, v) r = ConstantOfShape(c) t = Shape(z) q = ConstantOfShape(t) o = Add(r, q) y = Add(x, o) }}"""


@pytest.mark.parametrize(("dims", "shapes"), [("N,T", 1), ("T,N", 2)])
def test_sizes_are_computed_once(dims: str, shapes: int) -> None:
    """A Concat of the sizes of a tensor is its Shape; another order is another value."""
    model = shaped(SIZES.format(dims), zero=np.array(0), one=np.array(1), axis=ints(0))
    Shapes().apply(model, Context())
    Cleanup().apply(model, Context())
    assert ops(model)["Shape"] == shapes
    assert not ops(model)["Concat"]


def test_sizes_of_unknown_dimensions_are_not_taken_for_equal() -> None:
    model = shaped(SIZES.replace("[N,T]", "[?,?]").replace("{}", "?,?").replace("{{", "{").replace("}}", "}"),
                   zero=np.array(0), one=np.array(1), axis=ints(0))  # fmt: skip
    Shapes().apply(model, Context())
    assert ops(model)["Shape"] == 2


def test_sizes_that_a_reshape_copies_from_nowhere_stay_unknown() -> None:
    """The operator before it has no schema here, so its result has no shape yet; 0 stands for a size then, not for none."""
    model = make_model(
        """agraph (float[1,6,8] x) => (float[A,B,C,D] y)
        { a = com.microsoft.Unheard(x) y = Reshape(a, target) }""",
        target=np.array([0, 0, 2, -1]),
    )
    Shapes().apply(model, Context())
    assert [dim for dim in model.graph.outputs[0].shape or () if dim == 0] == []


def test_a_product_of_packed_weights_has_a_shape() -> None:
    model = make_model(
        """agraph (float[1,6,32] x) => (float[A,B,C,D] y)
        { a = com.microsoft.MatMulNBits<K = 32, N = 8, bits = 4, block_size = 32>(x, w, s) y = Reshape(a, target) }""",
        target=np.array([0, 0, 2, -1]),
        w=np.zeros((8, 1, 16), np.uint8),
        s=np.ones(8, np.float32),
    )
    Shapes().apply(model, Context())
    assert list(model.graph.outputs[0].shape or ()) == [1, 6, 2, 4]


def test_sizes_without_a_name_are_written_nowhere() -> None:
    """An axis whose size nobody names equals itself; its symbol is in no shape, constant or name of a saved model."""
    model = shaped(
        """agraph (float[N,4] x) => (float[M,4] y) { m = NonZero(x) t = Transpose<perm = [1,0]>(m) f = Cast<to = 1>(t)
        s = Shape(f) n = Gather(s, zero) u = Unsqueeze(n, axis) c = Concat<axis = 0>(u, rest)
        g = MatMul(f, w) y = Reshape(g, c) }""",
        w=np.ones((2, 4), np.float32),
        **FLATTEN_WEIGHTS,
    )
    Shapes().apply(model, Context())
    values = [value for node in model.graph for value in node.outputs]
    named = {dim.value for value in values for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    assert not any("axis" in (name or "") for name in named)
    assert b"axis 0 of" not in ir.to_proto(model).SerializeToString()
