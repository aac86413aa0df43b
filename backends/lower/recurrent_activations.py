"""The activation functions that LSTM, GRU and RNN may name, with their alpha and beta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from tvm import tirx

from graphopt.backends.codegen import mathematics
from graphopt.backends.codegen.builder import Expr, KernelBuilder, const, dtype_of
from graphopt.backends.kernels.recurrent import Activation
from graphopt.backends.lower.operator import Refused, attribute

DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
"""The functions of one direction where the node names none."""

Key = tuple[str, float, float]
"""Name, alpha and beta."""


@dataclass(frozen=True)
class Function:
    """`compute(k, x, alpha, beta)`; the defaults of alpha and beta are None where it takes none."""

    compute: Callable[[KernelBuilder, Expr, Expr, Expr], Expr]
    alpha: float | None = None
    beta: float | None = None


def activations(node: ir.Node, count: int) -> list[tuple[Key, Activation]]:
    """The functions of a node, all directions one after another, each with a key that tells equal ones.

    Alphas and betas are consumed in order by the functions that take them.
    """
    names = attribute(node, "activations")
    if not names:
        defaults = DEFAULTS[node.op_type]
        names = defaults * (count // len(defaults))
    if len(names) != count:
        raise Refused(f"{count} activations are needed, not {len(names)}")
    alphas, betas = (iter(attribute(node, f"activation_{name}", [])) for name in ("alpha", "beta"))
    made = []
    for name in names:
        function = FUNCTIONS.get(name.lower())
        if function is None:
            raise Refused(f"the activation {name!r} is not one of the specification")
        alpha = 0.0 if function.alpha is None else next(alphas, function.alpha)
        beta = 0.0 if function.beta is None else next(betas, function.beta)
        made.append(((name.lower(), alpha, beta), _activation(function, alpha, beta)))
    return made


def _activation(function: Function, alpha: float, beta: float) -> Activation:
    def compute(k: KernelBuilder, x: Expr) -> Expr:
        dtype = dtype_of(x)
        return function.compute(k, k.bind(x), const(alpha, dtype), const(beta, dtype))

    return compute


def _zero(x: Expr) -> Expr:
    return const(0, dtype_of(x))


def _one(x: Expr) -> Expr:
    return const(1, dtype_of(x))


def _softplus(k: KernelBuilder, x: Expr) -> Expr:
    """log(1 + e**x), without overflow."""
    small = mathematics.exp(k, _zero(x) - tirx.op.abs(x))
    return tirx.op.max(x, _zero(x)) + tirx.op.log(_one(x) + small)


FUNCTIONS: dict[str, Function] = {
    "sigmoid": Function(lambda k, x, a, b: mathematics.sigmoid(k, x)),
    "tanh": Function(lambda k, x, a, b: mathematics.tanh(k, x)),
    "relu": Function(lambda k, x, a, b: tirx.op.max(x, _zero(x))),
    "affine": Function(lambda k, x, a, b: a * x + b, 1.0, 0.0),
    "leakyrelu": Function(lambda k, x, a, b: tirx.Select(x < _zero(x), a * x, x), 0.01),
    "thresholdedrelu": Function(lambda k, x, a, b: tirx.Select(x > a, x, _zero(x)), 1.0),
    "scaledtanh": Function(lambda k, x, a, b: a * mathematics.tanh(k, b * x), 1.0, 1.0),
    "hardsigmoid": Function(
        lambda k, x, a, b: tirx.op.max(_zero(x), tirx.op.min(_one(x), a * x + b)), 0.2, 0.5
    ),
    "elu": Function(
        lambda k, x, a, b: tirx.Select(x < _zero(x), a * (mathematics.exp(k, x) - _one(x)), x), 1.0
    ),
    "softsign": Function(lambda k, x, a, b: x / (_one(x) + tirx.op.abs(x))),
    "softplus": Function(lambda k, x, a, b: _softplus(k, x)),
}
"""By lower-case name."""
