"""What a student was compressed to stays while it learns: zeros in any pattern, shared weights, integers."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphopt.compression.quantizing import quantize
from graphopt.feeds.data import Dataset
from graphopt.model import edit, normalise, proto
from graphopt.training.distillation import Goal
from tests.conftest import make_model, reference
from tests.training.distillation.harness import digits, disturbed, floats, learn, put, shipped

RNG = np.random.default_rng(11)


def sparse(model: ir.Model) -> ir.Model:
    """Two of four neighbours along the inputs of every matrix and filter are zero."""
    copy = model.clone()
    for name, array in floats(copy).items():
        if array.ndim > 1 and array.size % 4 == 0:
            groups = array.reshape(-1, 4)
            small = np.argsort(np.abs(groups), axis=1)[:, :2]
            pruned = groups.copy()
            np.put_along_axis(pruned, small, 0, axis=1)
            put(copy, name, pruned.reshape(array.shape))
    return copy


def clustered(model: ir.Model, count: int, bits: int, zero: bool = False) -> ir.Model:
    """Filters and matrices are chosen from a codebook each, by indices of so many bits."""
    copy = model.clone()
    for name, array in floats(copy).items():
        if array.ndim < 2:
            continue
        book = np.quantile(array, (np.arange(count) + 0.5) / count).astype(np.float32)
        if zero:
            book[count // 2] = 0
        indices = np.abs(array[..., None] - book).argmin(-1).astype(np.uint8)
        tensor = (
            ir.Tensor(indices.astype(ir.DataType.UINT4.numpy()), ir.DataType.UINT4) if bits == 4 else indices
        )
        chosen = edit.add_constant(copy.graph, tensor, f"{name}_indices")
        values = edit.add_constant(copy.graph, book, f"{name}_codebook")
        cast = ir.node("Cast", [chosen], {"to": ir.DataType.INT64})
        gather = ir.node("Gather", [values, cast.outputs[0]], {"axis": 0})
        cast.outputs[0].name, gather.outputs[0].name = f"{name}_places", f"{name}_chosen"
        copy.graph.insert_before(copy.graph[0], [cast, gather])
        old = copy.graph.initializers[name]
        old.replace_all_uses_with(gather.outputs[0])
        edit.drop_initializer(old)
    copy.opset_imports[""], copy.ir_version = 21, 10
    normalise(copy)
    return copy


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    """All initializers that are no floats."""
    found = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {
        name: each.numpy()
        for name, each in found.items()
        if each is not None and not each.dtype.is_floating_point()
    }


def gained(student: ir.Model, teacher: ir.Model) -> bool:
    done = learn(student, teacher, digits(), epochs=6, rate=1e-3)
    onnx.checker.check_model(proto(student), full_check=True)
    return done.best > 0 and done.rounds[done.best].held_out < done.rounds[0].held_out


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_zeros_stay(name: str) -> None:
    teacher = shipped(name)
    student = sparse(teacher)
    before = floats(student)
    assert gained(student, teacher)
    for each, array in floats(student).items():
        if array.ndim > 1 and array.size % 4 == 0:
            assert (array.reshape(-1, 4) != 0).sum(axis=1).max() <= 2
            np.testing.assert_array_equal(array == 0, before[each] == 0)
            assert not np.array_equal(array, before[each])


@pytest.mark.parametrize(("count", "bits"), [(16, 4), (8, 8)])
def test_weights_that_share_a_value_go_on_to(count: int, bits: int) -> None:
    teacher = shipped("digits_cnn")
    student = clustered(teacher, count, bits, zero=True)
    before, books = constants(student), floats(student)
    assert gained(student, teacher)
    for name, array in constants(student).items():
        np.testing.assert_array_equal(array, before[name])
    for name, array in floats(student).items():
        if name.endswith("_codebook"):
            assert not np.array_equal(array, books[name])
            assert array[count // 2] == 0
    reference(student, next(digits().batches(2)))


def test_groups_have_codebooks_of_their_own() -> None:
    text = """agraph (float[N,4] x) => (float[N,6] y) {
        i = Cast<to = 6>(codes) g = GatherElements<axis = 1>(books, i) r = Reshape(g, shape) w = Transpose(r)
        y = MatMul(x, w) }"""
    codes = RNG.integers(0, 3, (2, 12)).astype(np.uint8)
    shape, found = np.array([6, 4]), []
    for _ in range(2):
        books = RNG.standard_normal((2, 3)).astype(np.float32)
        books[0, 1] = 0
        found.append(make_model(text, codes=codes, books=books, shape=shape))
    student, teacher = found
    data = Dataset({"x": RNG.standard_normal((64, 4)).astype(np.float32)})
    learn(student, teacher, data, Goal("regression"), epochs=300, rate=0.05)
    np.testing.assert_allclose(floats(student)["books"], floats(teacher)["books"], atol=0.02)
    assert floats(student)["books"][0, 1] == 0


@pytest.mark.parametrize("scheme", ["int8", "int8-weights", "int4-weights"])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_integers_stay_integers(name: str, scheme: str) -> None:
    teacher = shipped(name)
    student = quantize(disturbed(teacher, 0.1), digits(100), scheme=scheme, techniques=()).model
    normalise(student)
    before, scales = constants(student), floats(student)
    assert gained(student, teacher)
    after = constants(student)
    assert {key: array.dtype for key, array in after.items()} == {
        key: array.dtype for key, array in before.items()
    }
    changed = [key for key, array in after.items() if not np.array_equal(array, before[key])]
    assert len(changed) >= 3
    for key, array in floats(student).items():
        if "scale" in key:
            np.testing.assert_array_equal(array, scales[key])


def test_biases_of_integer_layers_learn() -> None:
    text = """agraph (float[N,4] x) => (float[N,3] y) {
        d = DequantizeLinear(q, s) e = DequantizeLinear(b, t) y = Gemm(x, d, e) }"""
    levels, bias = np.array([[1, 2, 3]] * 4, np.int8), np.array([50, 60, 70], np.int32)
    student = make_model(text, q=levels, s=np.float32(0.5), b=bias, t=np.float32(0.01))
    teacher = make_model(text, q=levels, s=np.float32(0.5), b=bias + 300, t=np.float32(0.01))
    for model in (student, teacher):
        normalise(model)
    data = Dataset({"x": RNG.standard_normal((64, 4)).astype(np.float32)})
    learn(student, teacher, data, Goal("regression"), epochs=300, rate=0.05)
    np.testing.assert_allclose(constants(student)["b"], bias + 300, atol=20)


def test_zeros_of_sparse_integers_stay_and_those_of_rounding_do_not() -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y) { d = DequantizeLinear(q, s) y = MatMul(x, d) }"
    dense = RNG.integers(1, 20, (8, 4)).astype(np.int8)
    half = dense * (np.arange(8) % 2 == 0)[:, None].astype(np.int8)
    few = dense * (np.arange(8) != 3)[:, None].astype(np.int8)
    teacher = make_model(text, q=dense, s=np.float32(0.1))
    data = Dataset({"x": RNG.standard_normal((64, 8)).astype(np.float32)})
    kept = []
    for levels in (half, few):
        student = make_model(text, q=levels, s=np.float32(0.1))
        learn(student, teacher, data, Goal("regression"), epochs=200, rate=0.02)
        kept.append(not constants(student)["q"][levels == 0].any())
    assert kept == [True, False]


def test_bits_bound_what_is_learned() -> None:
    """Levels stay within those that were used, around zero."""
    text = "agraph (float[N,4] x) => (float[N,2] y) { d = DequantizeLinear(q, s) y = MatMul(x, d) }"
    levels = np.array([[1, -7], [2, 5], [3, 4], [4, 3]], np.int8)
    student = make_model(text, q=levels, s=np.float32(0.1))
    teacher = make_model(text, q=levels * 10, s=np.float32(0.1))
    data = Dataset({"x": RNG.standard_normal((64, 4)).astype(np.float32)})
    learn(student, teacher, data, Goal("regression"), epochs=300, rate=0.05)
    assert np.abs(constants(student)["q"]).max() == 7


@pytest.mark.parametrize("step", [16, 1])
def test_few_different_integers_stay_few(step: int) -> None:
    text = "agraph (float[N,32] x) => (float[N,32] y) { d = DequantizeLinear(q, s) y = MatMul(x, d) }"
    every = RNG.integers(-127, 128, (32, 32))
    levels = (every // step * step).astype(np.int8)
    student = make_model(text, q=levels, s=np.float32(0.01))
    teacher = make_model(text, q=(every // 2).astype(np.int8), s=np.float32(0.01))
    data = Dataset({"x": RNG.standard_normal((64, 32)).astype(np.float32)})
    learn(student, teacher, data, Goal("regression"), epochs=60, rate=0.02)
    found = constants(student)["q"]
    assert not np.array_equal(found, levels)
    stayed = set(found.ravel().tolist()) <= set(levels.ravel().tolist())
    assert stayed == (step == 16)
