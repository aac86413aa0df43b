"""Products with weights that are stored as integers: right, and small."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from graphopt.api import build, load
from tests.conftest import make_model, reference

RNG = np.random.default_rng(12)
DTYPES = {
    "int8": (np.int8, -128, 128),
    "uint8": (np.uint8, 0, 256),
    "int4": (ml_dtypes.int4, -8, 8),
    "uint4": (ml_dtypes.uint4, 0, 16),
}


def model(dtype: str, shape: tuple[int, int], block: int, zero: bool, transposed: bool) -> ir.Model:
    """A product with decoded weights, one scale a channel where `block` is 0."""
    kind, low, high = DTYPES[dtype]
    depth, columns = shape
    groups = (-(-depth // block), columns) if block else (columns,)
    arrays = {
        "w": RNG.integers(low, high, shape).astype(kind),
        "s": RNG.uniform(0.01, 0.02, groups).astype(np.float32),
        "z": (RNG.integers(low, high, groups) if zero else np.zeros(groups)).astype(kind),
    }
    axis = 0 if block else 1
    if transposed:
        axis, arrays = 1 - axis, {name: np.ascontiguousarray(array.T) for name, array in arrays.items()}
    blocks = f", block_size = {block}" if block else ""
    right = "Gemm<transB = 1>(x, d, b)" if transposed else "MatMul(x, d)"
    text = f"""agraph (float[5,{depth}] x) => (float[5,{columns}] y)
        {{ d = DequantizeLinear<axis = {axis}{blocks}>(w, s, z) y = {right} }}"""
    made = make_model(text, 21, b=RNG.standard_normal(columns).astype(np.float32))
    made.ir_version = 10
    for name, array in arrays.items():
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        made.graph.register_initializer(value)
        next(iter(made.graph)).replace_input_with("wsz".index(name), value)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
@pytest.mark.parametrize("zero", [False, True], ids=["", "zero points"])
@pytest.mark.parametrize(("shape", "block"), [((48, 40), 16), ((33, 21), 32), ((64, 16), 0), ((7, 3), 0)])
def test_it_is_what_onnx_runtime_computes(
    dtype: str, shape: tuple[int, int], block: int, zero: bool, transposed: bool, tmp_path: Path
) -> None:
    graph = model(dtype, shape, block, zero, transposed)
    x = RNG.standard_normal((5, shape[0])).astype(np.float32)
    [expected] = reference(graph, {"x": x})
    build(graph, tmp_path / "a.gopt", check=False)
    with load(tmp_path / "a.gopt") as compiled:
        [actual] = compiled.run(None, {"x": x})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "share"), [("int8", 0.4), ("uint4", 0.3)])
def test_the_artifact_holds_integers(dtype: str, share: float, tmp_path: Path) -> None:
    graph = model(dtype, (512, 256), 32 if dtype == "uint4" else 0, False, False)
    done = build(graph, tmp_path / "a.gopt", check=False)
    assert done.bytes - 30_000 < share * 4 * 512 * 256


def test_other_scales_are_decoded_before(tmp_path: Path) -> None:
    """Scales along the depth, or a matrix of two columns: floats in memory, and right."""
    for shape, axis in (((16, 8), 0), ((16, 2), 1)):
        text = f"""agraph (float[5,16] x) => (float[5,{shape[1]}] y)
            {{ d = DequantizeLinear<axis = {axis}>(w, s) y = MatMul(x, d) }}"""
        graph = make_model(
            text,
            21,
            w=RNG.integers(-99, 99, shape).astype(np.int8),
            s=RNG.uniform(0.1, 1, shape[axis]).astype(np.float32),
        )
        x = RNG.standard_normal((5, 16)).astype(np.float32)
        [expected] = reference(graph, {"x": x})
        build(graph, tmp_path / "a.gopt", check=False)
        with load(tmp_path / "a.gopt") as compiled:
            np.testing.assert_allclose(compiled.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-2)
