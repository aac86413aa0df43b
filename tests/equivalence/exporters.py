"""Graphs as exporters write them, in ONNX text: what they are made of, and which operators ought to be left."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from tests.conftest import make_model

RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Graph:
    """``left`` is the histogram of operators after O2."""

    text: str
    left: dict[str, int]
    opset: int = 17
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def model(self) -> ir.Model:
        return make_model(f"agraph {self.text}", self.opset, **self.constants)


TORCH_VIEW = Graph(
    """(float[N,T,8] x) => (float[N,T,2,4] y) {
        s = Shape(x) n = Gather<axis = 0>(s, zero) m = Unsqueeze(n, first)
        r = Shape(x) t = Gather<axis = 0>(r, one) u = Unsqueeze(t, first)
        c = Concat<axis = 0>(m, u, two, four) y = Reshape(x, c) }""",
    {"Reshape": 1},
    constants={"zero": np.int64(0), "one": np.int64(1), "first": ints(0), "two": ints(2), "four": ints(4)},
)
TORCH_EXPAND = Graph(
    """(float[N,1,4] x) => (float[N,3,4] y) {
        c = Concat<axis = 0>(minus, three, minus) o = ConstantOfShape<value = int64[1] {1}>(rank)
        m = Mul(o, all) e = Equal(c, m) w = Where(e, o, c) y = Expand(x, w) }""",
    {"Expand": 1},
    constants={"minus": ints(-1), "three": ints(3), "rank": ints(3), "all": ints(-1)},
)
TORCH_FLATTEN = Graph(
    """(float[N,4,6,6] x) => (float[N,5] y) {
        p = GlobalAveragePool(x) s = Shape(p) n = Gather<axis = 0>(s, zero) u = Unsqueeze(n, first)
        c = Concat<axis = 0>(u, minus) r = Reshape(p, c) i = Identity(w) y = Gemm<transB = 1>(r, i, b) }""",
    {"GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1},
    constants={"zero": np.int64(0), "first": ints(0), "minus": ints(-1), "w": weight(5, 4), "b": weight(5)},
)
TORCH_MASK = Graph(
    """(int64[N,T] mask, float[N,2,T,T] scores) => (float[N,2,T,T] y) {
        a = Unsqueeze(mask, first) b = Unsqueeze(a, second) f = Cast<to = 1>(b) c = Cast<to = 1>(f)
        o = Sub(one, c) p = Mul(o, low) q = Add(scores, p) y = Softmax<axis = -1>(q) }""",
    {"Unsqueeze": 1, "Cast": 1, "Sub": 1, "Mul": 1, "Add": 1, "Softmax": 1},
    constants={"first": ints(1), "second": ints(2), "one": np.float32(1), "low": np.float32(-10000)},
)
TORCH_TRAINED = Graph(
    """(float[1,3,8,8] x) => (float[1,4,8,8] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, w) n = BatchNormalization(c, g, b, m, v) d = Dropout(n)
        i = Identity(d) j = Identity(i) y = Relu(j) }""",
    {"Conv": 1, "Relu": 1},
    constants={
        "w": weight(4, 3, 3, 3),
        "g": weight(4),
        "b": weight(4),
        "m": weight(4),
        "v": np.abs(weight(4)) + 1,
    },
)
TORCH_ROTARY = Graph(
    """(float[N,2,T,8] x) => (float[N,2,T,8] y) {
        a = Slice(x, zero, half, last) b = Slice(x, half, end, last) n = Neg(b) r = Concat<axis = -1>(n, a)
        p = Mul(x, cos) q = Mul(r, sin) y = Add(p, q) }""",
    {"Slice": 2, "Neg": 1, "Concat": 1, "Mul": 2, "Add": 1},
    constants={
        "zero": ints(0),
        "half": ints(4),
        "end": ints(2**63 - 1),
        "last": ints(3),
        "cos": weight(8),
        "sin": weight(8),
    },
)
TWICE = Graph(
    """(float[N,4] x) => (float[N,4] y) {
        a = Sigmoid(x) b = Tanh(a) c = Sigmoid(x) d = Tanh(c) y = Add(b, d) }""",
    {"Sigmoid": 1, "Tanh": 1, "Add": 1},
)
TF_CONVOLUTION = Graph(
    """(float[1,8,8,3] x) => (float[1,4,4,5] y) {
        a = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv<pads = [1, 1, 1, 1]>(a, w) t = Transpose<perm = [0, 2, 3, 1]>(c)
        p = Add(t, b) r = Relu(p) q = Pad(r, pads) u = Transpose<perm = [0, 3, 1, 2]>(q)
        d = Conv<strides = [2, 2]>(u, v) y = Transpose<perm = [0, 2, 3, 1]>(d) }""",
    {"Transpose": 2, "Conv": 2, "Relu": 1},
    constants={
        "w": weight(4, 3, 3, 3),
        "b": weight(4),
        "pads": ints(0, 0, 0, 0, 0, 1, 1, 0),
        "v": weight(5, 4, 3, 3),
    },
)
TF_RESIDUAL = Graph(
    """(float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,6,8,8] y) {
        a = Transpose<perm = [0, 2, 3, 1]>(x) b = Transpose<perm = [0, 2, 3, 1]>(z) s = Add(a, b)
        m = Mul(s, k) c = Concat<axis = 3>(m, a) y = Transpose<perm = [0, 3, 1, 2]>(c) }""",
    {"Add": 1, "Mul": 1, "Concat": 1},
    constants={"k": weight(3)},
)
TF_POOL = Graph(
    """(float[1,3,8,8] x) => (float[1,3] y) {
        a = Transpose<perm = [0, 2, 3, 1]>(x) y = ReduceMean<axes = [1, 2], keepdims = 0>(a) }""",
    {"ReduceMean": 1},
)
TF_JOINED = Graph(
    """(float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,8,8,3] y) {
        a = Transpose<perm = [0, 2, 3, 1]>(x) b = Transpose<perm = [0, 2, 3, 1]>(z) y = Add(a, b) }""",
    {"Add": 1, "Transpose": 1},
)
KERAS_DENSE = Graph(
    """(float[N,8] x) => (float[N,4] y) {
        d = MatMul(x, w) a = Add(d, b) s = Mul(a, half) t = Mul(s, half) y = Relu(t) }""",
    {"Gemm": 1, "Relu": 1},
    constants={"w": weight(8, 4), "b": weight(4), "half": np.float32(0.5)},
)
PADDLE_SCALE = Graph(
    """(float[N,3,4] x) => (float[N,3,4] y) {
        a = Mul(x, s) b = Add(a, zero) c = Mul(b, k) d = Add(c, u) e = Add(d, v) y = Pow(e, one) }""",
    {"Mul": 1, "Add": 1},
    constants={
        "s": np.float32(0.5),
        "zero": np.float32(0),
        "k": weight(4),
        "u": np.float32(1),
        "v": weight(3, 4),
        "one": np.float32(1),
    },
)
PADDLE_SHAPES = Graph(
    """(float[N,3,4] x) => (float[N,12] y) {
        s = Shape(x) c = Cast<to = 6>(s) n = Slice(c, zero, one, zero) k = Cast<to = 7>(n)
        d = Concat<axis = 0>(k, rest) y = Reshape(x, d) }""",
    {"Reshape": 1},
    constants={"zero": ints(0), "one": ints(1), "rest": ints(-1)},
)
MXNET_OUTPUT = Graph(
    """(float[2,4,3,3] x) => (float[2,36] y) {
        f = Flatten(x) r = Reshape(f, same) u = Unsqueeze(r, tail) y = Squeeze(u, tail) }""",
    {"Reshape": 1},
    constants={"same": ints(2, 36), "tail": ints(2)},
)
CNTK_SUM = Graph(
    """(float[1,4] x) => (float[1,3] y) {
        s = Sum(x) r = Reshape(s, row) q = Reshape(r, back) m = MatMul(q, w) y = Add(m, b) }""",
    {"Gemm": 1},
    constants={"row": ints(1, 1, 4), "back": ints(1, 4), "w": weight(4, 3), "b": weight(1, 3)},
)
HALVES = Graph(
    """(float[N,4] x, float[N,4] z) => (float[N,4] y, float[N,4] v) {
        c = Concat<axis = 1>(x, z) a, b = Split<axis = 1>(c, sizes) d = Slice(c, start, end, last)
        y = Mul(a, b) v = Mul(d, b) }""",
    {"Mul": 2},
    constants={"sizes": ints(4, 4), "start": ints(4), "end": ints(8), "last": ints(1)},
)
CHUNKS = Graph(
    """(float[N,4] x) => (float[N,4] y) { a, b = Split<axis = 1>(x, sizes) y = Concat<axis = 1>(a, b) }""",
    {"Identity": 1},
    constants={"sizes": ints(2, 2)},
)
GROWN = Graph(
    """(float[N,T] x) => (float[N,1,T,1] y) { a = Unsqueeze(x, last) y = Unsqueeze(a, second) }""",
    {"Unsqueeze": 1},
    constants={"last": ints(2), "second": ints(1)},
)
VIEWS = Graph(
    """(float[N,T,4,3] x) => (float[M,L,2] y) { a = Reshape(x, flat) y = Reshape(a, target) }""",
    {"Reshape": 1},
    constants={"flat": ints(0, 0, 12), "target": ints(6, -1, 2)},
)
NORMALISED = Graph(
    """(float[N,T,8] x) => (float[N,T,4] q, float[N,T,4] k) {
        s = Mul(x, gamma) q = MatMul(s, a) k = MatMul(s, b) }""",
    {"MatMul": 2},
    constants={"gamma": weight(8), "a": weight(8, 4), "b": weight(8, 4)},
)
LOOP = Graph(
    """(int64 n, float[4] x) => (float[4] y) {
        y = Loop<body = step (int64 i, bool go, float[4] a) => (bool on, float[4] b) {
            on = Identity(go) s = Shape(a) c = Cast<to = 1>(s) p = Add(a, c) d = Identity(p) q = Dropout(d) b = Mul(q, one)
        }>(n, yes, x) }""",
    {"Loop": 1, "Identity": 1, "Add": 1},
    constants={"yes": np.array(True), "one": np.float32(1)},
)
DECIDED = Graph(
    """(float[2,4] x) => (float[2,4] y) {
        r = Shape(x) s = Size(r) e = Equal(s, two)
        y = If<then_branch = a () => (float[2,4] t) { t = Relu(x) }, else_branch = b () => (float[2,4] f) { f = Neg(x) }>(e)
    }""",
    {"Relu": 1},
    constants={"two": np.int64(2)},
)

GRAPHS: dict[str, Graph] = {
    name.lower(): graph for name, graph in list(globals().items()) if isinstance(graph, Graph)
}


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))
