"""Moves part of the differences between channels from activations, which have one scale for all, into weights, which have many.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2023. The factors are an
operator of their own before the activations are rounded, and so change nothing for whoever else reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.quantize.observations import Place
from graphopt.passes.quantize.observers import Channels
from graphopt.passes.quantize.plan import Plan
from graphopt.passes.quantize.ranges import LEVELS
from graphopt.passes.quantize.writer import LARGEST, is_transposed

STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of a channel's range that may go into the weights, as exponents."""


def products_of(plan: Plan) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """The values that nothing but products read on integers, with those products."""
    for value in plan.values:
        readers = plan.readers[value]
        alone = plan.group(value) is value and all(
            plan.group(other) is not value for other in plan.values if other is not value
        )
        if alone and readers and all(_takes_channels_last(reader) for reader in readers):
            yield value, list(readers)


def _takes_channels_last(node: ir.Node) -> bool:
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transA"))


def smooth(model: ir.Model, plan: Plan, seen: Mapping[Place, Channels]) -> dict[ir.Value, Channels]:
    """Scale the channels of values and of the weights that they meet, where that is expected to help; what has been `seen` goes by
    name and axis. Gives the values that `plan` has instead now, with their channels."""
    names, found = edit.Names(model), {}
    for value, readers in list(products_of(plan)):
        channels = seen[value.name or "", -1]
        factors = best_factors(channels, [_rows(reader) for reader in readers])
        if factors is None:
            continue
        scaled = _scale(model.graph, value, 1 / factors, names)
        for reader in readers:
            _multiply_rows(model.graph, reader, factors, names)
            reader.replace_input_with(0, scaled)
        plan.replace(value, scaled)
        found[scaled] = channels.divided(factors)
    return found


def best_factors(channels: Channels, weights: list[np.ndarray]) -> np.ndarray | None:
    """Those by which activations are divided with the least expected error of the products; None where that is none at all."""
    side_by_side = np.concatenate(weights, axis=1)
    options = [_factors(channels, side_by_side, strength) for strength in STRENGTHS]
    best = min(options, key=lambda factors: expected_error(channels, side_by_side, factors))
    plain = np.ones_like(best)
    better = expected_error(channels, side_by_side, best) < expected_error(channels, side_by_side, plain)
    return best if better else None


def _factors(channels: Channels, rows: np.ndarray, strength: float) -> np.ndarray:
    largest = np.maximum(np.abs(channels.low), np.abs(channels.high)).astype(np.float64)
    against = np.abs(rows).max(axis=1).astype(np.float64)
    known = (largest > 0) & (against > 0)
    safe = np.where(known, largest, 1.0), np.where(known, against, 1.0)
    return np.where(known, safe[0] ** strength / safe[1] ** (1 - strength), 1.0).astype(np.float32)


def expected_error(channels: Channels, rows: np.ndarray, factors: np.ndarray) -> float:
    """The mean square of what rounding adds to the products, if it is as likely to be off by any part of a step: of the
    activations, times the weights, and of the weights, times the activations."""
    step = float((channels.high / factors).max() - (channels.low / factors).min()) / (LEVELS - 1)
    scaled = rows * factors[:, None]
    weight_steps = np.abs(scaled).max(axis=0) / LARGEST
    of_activations = step**2 * np.square(scaled, dtype=np.float64).sum()
    of_weights = np.square(weight_steps).sum() * (channels.mean_squares / factors**2).sum()
    return float(of_activations + of_weights) / 12


def _rows(node: ir.Node) -> np.ndarray:
    """The weights with a row for each input channel."""
    array = edit.constant(node.inputs[1])
    assert array is not None
    return array.T if is_transposed(node) else array


def _multiply_rows(graph: ir.Graph, node: ir.Node, factors: np.ndarray, names: edit.Names) -> None:
    weight = node.inputs[1]
    assert weight is not None
    scaled = _rows(node) * factors[:, None]
    scaled = np.ascontiguousarray(scaled.T if is_transposed(node) else scaled)
    node.replace_input_with(1, edit.add_constant(graph, scaled, names.fresh(f"{weight.name}_smoothed")))


def _scale(graph: ir.Graph, value: ir.Value, factors: np.ndarray, names: edit.Names) -> ir.Value:
    constant = edit.add_constant(graph, factors, names.fresh(f"{value.name}_factors"))
    made = ir.node("Mul", [value, constant])
    made.outputs[0].name = made.name = names.fresh(f"{value.name}_smoothed")
    made.outputs[0].type, made.outputs[0].shape = value.type, value.shape
    edit.insert_behind(graph, value, [made])
    return made.outputs[0]
