"""If, Loop and Scan against ONNX Runtime: the driver branches and iterates at run time."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from graphopt.errors import UnsupportedError
from tests.backends.lower.harness import check

random = np.random.default_rng(3)


def model(text: str, opset: int = 16) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> {text}')


def run(text: str, feeds: Mapping[str, np.ndarray], opset: int = 16) -> None:
    check(model(text, opset), feeds)


def normal(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype("float32")


@pytest.mark.parametrize("flag", [True, False])
def test_if_runs_one_arm(flag: bool) -> None:
    """Arms compute, pass an outer value on, or return a constant; both read a lazy outer value."""
    text = """
    f (bool c, float[3,4] x, float[4,5] w) => (float[3,5] y, float[3,4] z, float[2] k) {
        t = Exp(x)
        y, z, k = If (c) <
            then_branch = g1 () => (y1, x1, k1) {
                x1 = Identity(x)
                y1 = MatMul(t, w)
                k1 = Constant <value = float[2] {1, 2}> ()
            },
            else_branch = g2 () => (y2, z2, k2) {
                s = Neg(t)
                y2 = MatMul(s, w)
                z2 = Relu(x)
                k2 = Constant <value = float[2] {3, 4}> ()
            }>
    }"""
    run(text, {"c": np.array(flag), "x": normal(3, 4), "w": normal(4, 5)})


@pytest.mark.parametrize("flag", [True, False])
def test_arms_of_one_kernel(flag: bool) -> None:
    text = """
    f (bool c) => (float[2] y) {
        y = If (c) <then_branch = g1 () => (a) { a = Constant <value = float[2] {1, 2}> () },
                    else_branch = g2 () => (b) { b = Constant <value = float[2] {3, 4}> () }>
    }"""
    run(text, {"c": np.array(flag)})


@pytest.mark.parametrize("flag", [True, False])
def test_nested_if(flag: bool) -> None:
    text = """
    f (bool c, bool d, float[7] x) => (float[7] y) {
        y0 = If (c) <
            then_branch = g1 () => (a) {
                a = If (d) <then_branch = h1 () => (b) { b = Relu(x) }, else_branch = h2 () => (e) { e = Neg(x) }>
            },
            else_branch = g2 () => (f) { f = Abs(x) }>
        y = Add(y0, x)
    }"""
    for inner in (True, False):
        run(text, {"c": np.array(flag), "d": np.array(inner), "x": normal(7)})


def test_if_with_arms_of_different_shapes_is_refused() -> None:
    text = """
    f (bool c, float[3] x) => (float[n] y) {
        y = If (c) <then_branch = g1 () => (a) { a = Relu(x) },
                    else_branch = g2 () => (b) { b = Concat <axis = 0> (x, x) }>
    }"""
    with pytest.raises(UnsupportedError, match=r"float32\[3\] in one branch and float32\[6\] in the other"):
        run(text, {"c": np.array(True), "x": normal(3)})


COUNTED = """
    f (int64 n, float[3] x, float[3] s) => (float[3] a, float[3] b, int64[1] i) {
        t = Exp(s)
        one = Constant <value = int64[1] {1}> ()
        zero = Constant <value = int64[1] {0}> ()
        a, b, i = Loop (n, , x, s, zero) <
            body = g (int64 iter, bool go, float[3] p, float[3] q, int64[1] j) => (go2, q2, r, j2) {
                go2 = Identity(go)
                q2 = Add(q, t)
                r = Mul(p, p)
                j2 = Add(j, one)
            }>
    }"""


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_loop_with_a_trip_count_of_run_time(trips: int) -> None:
    """Each carried value becomes a function of the other, so that none may be overwritten early."""
    run(COUNTED, {"n": np.array(trips), "x": normal(3) / 4, "s": normal(3) / 4})


@pytest.mark.parametrize("limit", [1.0, 40.0, -1.0])
def test_loop_ends_when_its_condition_fails(limit: float) -> None:
    text = """
    f (bool first, float[1] x, float[1] limit) => (float[1] y, int64 count) {
        zero = Constant <value = int64 {0}> ()
        y, count = Loop (, first, x, zero) <
            body = g (int64 iter, bool go, float[1] v, int64 n) => (go2, v2, iter2) {
                v2 = Add(v, v)
                less = Less(v2, limit)
                axes = Constant <value = int64[1] {0}> ()
                go2 = Squeeze(less, axes)
                iter2 = Identity(iter)
            }>
    }"""
    for first in (True, False):
        feeds = {"first": np.array(first), "x": np.float32([1]), "limit": np.float32([limit])}
        run(text, feeds)


def test_loop_scan_outputs_and_slices_of_outer_values() -> None:
    text = """
    f (float[4,2,3] x, float[2,3] s) => (float[2,3] last, float[4,2,3] all, float[4,3] sums) {
        n = Constant <value = int64 {4}> ()
        go = Constant <value = bool {1}> ()
        last, all, sums = Loop (n, go, s) <
            body = g (int64 iter, bool go_in, float[2,3] v) => (go_out, v2, v3, m) {
                go_out = Identity(go_in)
                row = Gather <axis = 0> (x, iter)
                v2 = Add(v, row)
                v3 = Tanh(v2)
                axes = Constant <value = int64[1] {0}> ()
                m = ReduceSum <keepdims = 0> (v2, axes)
            }>
    }"""
    run(text, {"x": normal(4, 2, 3), "s": normal(2, 3)})


def test_nested_loops() -> None:
    text = """
    f (int64 n, float[3] x) => (float[3] y) {
        y = Loop (n, , x) <
            body = g (int64 i, bool go, float[3] v) => (go2, w) {
                go2 = Identity(go)
                w = Loop (i, , v) <
                    body = h (int64 j, bool go3, float[3] u) => (go4, u2) {
                        go4 = Identity(go3)
                        t = Cast <to = 1> (j)
                        u1 = Add(u, t)
                        u2 = Sub(u1, x)
                    }>
            }>
    }"""
    run(text, {"n": np.array(4), "x": normal(3)})


def test_branch_inside_a_loop() -> None:
    text = """
    f (int64 n, float[3] x, int64 at) => (float[3] y) {
        y = Loop (n, , x) <
            body = g (int64 i, bool go, float[3] v) => (go2, w) {
                go2 = Identity(go)
                early = Less(i, at)
                w = If (early) <then_branch = a () => (p) { p = Add(v, x) }, else_branch = b () => (q) { q = Mul(v, x) }>
            }>
    }"""
    run(text, {"n": np.array(5), "x": normal(3), "at": np.array(2)})


@pytest.mark.parametrize(
    ("loop", "reason"),
    [
        ("Loop (n, , x)", "the number of its iterations"),
        ("Loop (four, c, x)", "a condition computed at run time"),
    ],
)
def test_scan_outputs_of_unknown_length_are_refused(loop: str, reason: str) -> None:
    text = f"""
    f (int64 n, bool c, float[3] x) => (float[3] y, float[m,3] all) {{
        four = Constant <value = int64 {{4}}> ()
        y, all = {loop} <
            body = g (int64 i, bool go, float[3] v) => (go2, w, w2) {{
                go2 = Identity(go)
                w = Add(v, v)
                w2 = Identity(w)
            }}>
    }}"""
    with pytest.raises(UnsupportedError, match=reason):
        run(text, {"n": np.array(4), "c": np.array(True), "x": normal(3)})


def test_a_carried_value_that_grows_is_refused() -> None:
    text = """
    f (float[3] x) => (float[m] y) {
        four = Constant <value = int64 {4}> ()
        y = Loop (four, , x) <
            body = g (int64 i, bool go, float[k] v) => (go2, w) { go2 = Identity(go) w = Concat <axis = 0> (v, x) }>
    }"""
    with pytest.raises(UnsupportedError, match=r"float32\[3\] to float32\[6\]"):
        run(text, {"x": normal(3)})


def test_a_reason_inside_a_body_is_told() -> None:
    text = """
    f (bool c, float[3] x) => (float[3] y) {
        y = If (c) <then_branch = g1 () => (a) { a = NoSuchOperator(x) }, else_branch = g2 () => (b) { b = Neg(x) }>
    }"""
    with pytest.raises(UnsupportedError, match="NoSuchOperator"):
        run_without_reference(text, {"c": np.array(True), "x": normal(3)})


def run_without_reference(text: str, feeds: Mapping[str, np.ndarray]) -> None:
    from tests.backends.lower.harness import compiled, ir, models

    loaded = ir.from_proto(model(text))
    models.normalise(loaded)
    compiled(loaded, feeds)


SCAN = """
    f (float[2] s, float[{a}] x, float[{b}] z) => (float[2] last, float[{y}] all, float[5,2] w) {{
        last, all, w = Scan <num_scan_inputs = 2, {attributes},
            body = g (float[2] v, float[2] xt, float[2,3] zt) => (v2, y, q) {{
                axes = Constant <value = int64[1] {{1}}> ()
                m = ReduceSum <keepdims = 0> (zt, axes)
                t = Mul(xt, m)
                v2 = Add(v, t)
                y = Neg(v)
                q = Relu(v2)
            }}> (s, x, z)
    }}"""


@pytest.mark.parametrize(
    ("a", "b", "y", "attributes"),
    [
        ((5, 2), (5, 2, 3), (5, 2), "scan_input_axes = [0, 0]"),
        ((2, 5), (2, 5, 3), (2, 5), "scan_input_axes = [1, 1], scan_output_axes = [1, 0]"),
        ((2, 5), (2, 3, 5), (2, 5), "scan_input_axes = [-1, -1], scan_output_axes = [-1, 0]"),
        (
            (5, 2),
            (5, 2, 3),
            (5, 2),
            "scan_input_directions = [1, 0], scan_output_directions = [0, 1]",
        ),
    ],
)
def test_scan(a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...], attributes: str) -> None:
    shapes = {name: ",".join(map(str, shape)) for name, shape in (("a", a), ("b", b), ("y", y))}
    text = SCAN.format(attributes=attributes, **shapes)
    run(text, {"s": normal(2), "x": normal(*a), "z": normal(*b)})


def test_scan_over_a_batch() -> None:
    text = """
    f (float[3,2] s, float[3,5,2] x) => (float[3,2] last, float[3,5,2] all) {
        last, all = Scan <num_scan_inputs = 1, directions = [1],
            body = g (float[2] v, float[2] t) => (v2, y) { v2 = Add(v, t) y = Mul(v2, t) }> (, s, x)
    }"""
    run(text, {"s": normal(3, 2), "x": normal(3, 5, 2)}, opset=8)
