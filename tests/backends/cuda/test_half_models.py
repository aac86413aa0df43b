"""Whole models on a GPU whose operands are rounded: verified as they are compiled, and what is told of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt import model as models
from graphopt.backends.targets import Target, find_target
from graphopt.compiling.precision import prepare, too_large
from graphopt.passes.shapes import Shapes
from graphopt.rewriting.pipeline import Context
from graphopt_runtime.artifact import open_artifact
from tests.conftest import make_model, random_feeds

RNG = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def pictures() -> ir.Model:
    text = """g (float[1,3,12,12] x) => (float[1,10] y) {
        a = Conv<pads=[1,1,1,1]>(x, first, bias) b = Relu(a)
        c = MaxPool<kernel_shape=[2,2],strides=[2,2]>(b)
        d = Conv<pads=[1,1,1,1]>(c, second) e = Relu(d)
        f = Conv<group=16,pads=[1,1,1,1]>(e, depthwise) h = Add(f, e) i = Relu(h)
        j = GlobalAveragePool(i) k = Flatten(j) m = Gemm(k, classes) y = Softmax<axis=-1>(m) }"""
    weights = {
        "first": floats(16, 3, 3, 3),
        "bias": floats(16),
        "second": floats(16, 16, 3, 3),
        "depthwise": floats(16, 1, 3, 3),
        "classes": floats(16, 10),
    }
    return make_model(text, **weights)


def tokens() -> ir.Model:
    text = """g (float[1,20,64] x) => (float[1,20,64] y) {
        n = LayerNormalization(x, scale)
        p = MatMul(n, wq) q = Reshape(p, heads) r = Transpose<perm=[0,2,1,3]>(q)
        s = MatMul(n, wk) t = Reshape(s, heads) u = Transpose<perm=[0,2,3,1]>(t)
        v = MatMul(n, wv) w = Reshape(v, heads) z = Transpose<perm=[0,2,1,3]>(w)
        a = MatMul(r, u) b = Mul(a, factor) c = Softmax<axis=-1>(b) d = MatMul(c, z)
        e = Transpose<perm=[0,2,1,3]>(d) f = Reshape(e, rows) h = MatMul(f, wo) y = Add(h, x) }"""
    weights: dict[str, Any] = {name: floats(64, 64) for name in ("wq", "wk", "wv", "wo")}
    weights |= {"scale": np.ones(64, np.float32), "factor": np.float32(0.25)}
    weights |= {"heads": np.array([1, 20, 4, 16]), "rows": np.array([1, 20, 64])}
    return make_model(text, **weights)


BOUNDS = {"fp16": (1e-6, 4e-3), "bf16": (1e-5, 3e-2), "tf32": (1e-6, 4e-3)}
"""The least and largest error that rounding may cost the models below."""

NAMES = {"fp16": "float16", "bf16": "bfloat16", "tf32": "tf32"}

each_precision = pytest.mark.parametrize("precision", NAMES)


def build(model: ir.Model, target: Target, folder: Path, precision: str = "fp16", **options: Any) -> Any:
    done = api.build(model, folder / "model.gopt", target.name, precision=precision, **options)
    assert done.verdict.passed
    return done


def kernels(done: Any) -> list[str]:
    return [layer["kernel"] for layer in done.layers]


@each_precision
def test_convolutions_stay_on_tensor_cores_and_in_one_layout(
    gpu: Target, tmp_path: Path, precision: str
) -> None:
    done = build(pictures(), gpu, tmp_path, precision)
    assert kernels(done)[:5] == ["pointwise", "conv", "pool", "conv", "depthwise"]
    assert "copy" not in kernels(done)
    name, (least, most) = NAMES[precision], BOUNDS[precision]
    assert done.notices[-1].startswith(
        f"{gpu.name}: 4 of 4 convolutions and products multiply {name}; in ONNX"
    )
    assert least < done.verdict.max_rel_err < most
    [made] = open_artifact(tmp_path / "model.gopt").builds
    assert made["precision"] == name


def cross_stage(first: str = "a", second: str = "b", classes: int = 8) -> ir.Model:
    """Channels that are parted, refined and joined again, enlarged and joined with others, as detectors have them, and two heads."""
    text = f"""g (float[2,16,6,6] x) => (float[2,c,12,12] y) {{
        s = Conv(x, wide) r = Relu(s)
        a, b = Split<axis=1, num_outputs=2>(r)
        p = Conv<pads=[1,1,1,1]>(b, square) q = Add(p, b)
        j = Concat<axis=1>({first}, {second}, q)
        n = Conv(j, narrow) up = Resize<mode="nearest">(n, , scales)
        t = Conv<kernel_shape=[1,1]>(z, wide) k = Concat<axis=1>(up, t)
        e = Conv(k, boxes) h = Conv(k, classes) y = Concat<axis=1>(e, h) }}"""
    text = text.replace("x) =>", "x, float[2,16,12,12] z) =>").replace("[2,c,", f"[2,{16 + classes},")
    return make_model(
        text,
        wide=floats(32, 16, 1, 1),
        square=floats(16, 16, 3, 3),
        narrow=floats(24, 48, 1, 1),
        scales=np.array([1, 1, 2, 2], np.float32),
        boxes=floats(16, 56, 1, 1),
        classes=floats(classes, 56, 1, 1),
    )


@pytest.mark.parametrize("classes", [8, 5], ids=["whole chunks", "odd classes"])
def test_channels_are_parted_and_joined_in_place(gpu: Target, tmp_path: Path, classes: int) -> None:
    """Two transposed inputs and the enlarged image are the only ones that are moved; odd classes are stored one after the other, where
    whole chunks of an output are turned at last."""
    done = build(cross_stage(classes=classes), gpu, tmp_path)
    assert kernels(done).count("conv") == 6
    moved = [layer["nodes"] for layer in done.layers if layer["kernel"] != "conv"]
    assert len(moved) == 3 + (classes == 8)


def test_odd_channels_are_joined_in_place(gpu: Target, tmp_path: Path) -> None:
    """Parts begin anywhere in a pixel, which ends in zeros that the last of them stores."""
    text = """g (float[1,8,7,7] x) => (float[1,8,7,7] y) {
        a = Conv(x, wide) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, square) d = MaxPool<kernel_shape=[1,1]>(b)
        e = Concat<axis=1>(c, d, b) f = Concat<axis=1>(c, e) y = Conv(f, narrow) }"""
    weights = {"wide": floats(11, 8, 1, 1), "square": floats(10, 11, 3, 3), "narrow": floats(8, 42, 1, 1)}
    done = build(make_model(text, **weights), gpu, tmp_path)
    assert kernels(done).count("conv") == 3
    assert len(done.layers) == 3 + 1 + 1 + 3, kernels(done)


def test_parts_in_another_order_are_copied(gpu: Target, tmp_path: Path) -> None:
    done = build(cross_stage("b", "a"), gpu, tmp_path)
    assert len([name for name in kernels(done) if name != "conv"]) == 3 + 1 + 2


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_attention_is_one_kernel_that_reads_the_projection(
    gpu: Target, tmp_path: Path, precision: str
) -> None:
    done = build(tokens(), gpu, tmp_path, precision)
    assert kernels(done) == ["normalize", "gemm", "attention", "gemm"]
    assert done.notices[-1].startswith(f"{gpu.name}: 3 of 3")


def test_what_is_kept_stays_float32(gpu: Target, tmp_path: Path) -> None:
    done = build(pictures(), gpu, tmp_path, keep_float=["Conv", "Gemm"])
    assert done.notices[-1].startswith(f"{gpu.name}: 0 of 4")
    assert done.verdict.max_rel_err < 1e-5


def test_float32_is_the_default(gpu: Target, tmp_path: Path) -> None:
    done = api.build(pictures(), tmp_path / "model.gopt", gpu.name)
    assert done.verdict.max_rel_err < 1e-5
    assert not done.notices


@pytest.mark.parametrize(("factor", "expected"), [(3e4, {"a"}), (1.0, set())])
def test_values_near_the_end_of_the_range_are_found(factor: float, expected: set[str]) -> None:
    text = "g (float[4,8] x) => (float[4,8] y) { a = Mul(x, factor) b = MatMul(a, w) y = Mul(b, x) }"
    model = make_model(text, w=floats(8, 8), factor=np.float32(factor))
    models.normalise(model)
    Shapes().apply(model, Context())
    feeds = [random_feeds(model)]
    assert too_large(model, feeds, 16376.0) == expected
    prepared = prepare([model], find_target("cuda:sm_90"), "fp16", (), lambda each: feeds)
    assert ("would leave its range" in prepared.notice) == bool(expected)
    assert prepared.layers == 1 - len(expected)
