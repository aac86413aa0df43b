"""Removing channels must give what a model gives whose readers do not see them."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.model import edit, infer_shapes
from graphopt.model.attributes import attribute
from graphopt.passes.prune.groups import Group, Place, Slot, Structure, find_groups
from graphopt.passes.prune.labels import line
from graphopt.passes.prune.removal import Kept, remove
from graphopt.passes.prune.separate import separate
from graphopt.passes.prune.shuffle import close_shuffles, open_shuffles
from tests.conftest import make_model, random_feeds, reference


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def ready(model: ir.Model) -> ir.Model:
    """The model in the form in which channels are followed."""
    infer_shapes(model)
    counts: Counter[str] = Counter()
    for node in model.graph:
        node.name = node.name or f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
    open_shuffles(model)
    separate(model)
    return model


def between(body: str, opset: int = 18, /, **constants: np.ndarray) -> ir.Model:
    """A convolution that makes 8 channels `a` of a 6 by 6 image, a body that makes `b` of them, and one that reads 8 of those."""
    head = "agraph (float[2,3,6,6] x) => (float[N,4,H,W] y) { a = Conv <pads = [1,1,1,1]> (x, w) "
    weights = {"w": random(8, 3, 3, 3), "v": random(4, 8, 1, 1)}
    return ready(make_model(head + body + " y = Conv(b, v) }", opset, **{**weights, **constants}))


def choice(groups: list[Group], ratio: float, seed: int) -> Kept:
    """A random share of every group that stays, at least one channel."""
    rng = np.random.default_rng(seed)
    kept = {}
    for group in groups:
        mask = rng.random(group.size) >= ratio
        mask[rng.integers(group.size)] = True
        kept[group.name] = mask
    return kept


def pruned(model: ir.Model, kept: Kept) -> ir.Model:
    """A copy without the other channels."""
    smaller = model.clone()
    remove(find_groups(smaller), kept)
    close_shuffles(smaller)
    onnx.checker.check_model(ir.to_proto(smaller), full_check=True)
    return smaller


def unseen(model: ir.Model, kept: Kept) -> ir.Model:
    """A copy of the same sizes in which nothing reads the other channels: weights are zero that multiply them, and so are values
    that anything else sums over."""
    copy = model.clone()
    structure = find_groups(copy)
    gone = {
        number
        for group in structure.groups
        if group.name in kept
        for number in group.classes[~kept[group.name]].tolist()
    }
    names = edit.Names(copy)
    uses = [
        (*_use(place), place.weight, kept[group.name])
        for group in structure.groups
        if group.name in kept
        for place in group.readers
    ]
    for node in list(copy.graph):
        _mask_where_labels_end(structure, node, gone, names)
    for node, index, weight, mask in uses:
        _zero(copy, node, index, weight, mask, names)
    return copy


def _use(place: Place) -> tuple[ir.Node, int]:
    """Where the weight of a place is an input: of its node, or of what dequantises it for the node."""
    nodes = [place.node, *(value.producer() for value in place.node.inputs if value is not None)]
    return next(
        (node, index)
        for node in nodes
        if node is not None
        for index, value in enumerate(node.inputs)
        if value is place.weight.value
    )


def _zero(
    model: ir.Model, node: ir.Node, index: int, weight: Slot, kept: np.ndarray, names: edit.Names
) -> None:
    """Zeros for channels that are not kept, in a copy of a weight of its own."""
    array = edit.constant(node.inputs[index]).copy()
    gone = (weight.units >= 0) & ~kept[weight.units]
    np.moveaxis(array, weight.axis, 0)[gone] = 0
    node.replace_input_with(index, edit.add_constant(model.graph, array, names.fresh("zeroed")))


def _mask_where_labels_end(structure: Structure, node: ir.Node, gone: set[int], names: edit.Names) -> None:
    """Zeros for what a node that is no reader sums up."""
    readers = {(place.node, place.data.value) for group in structure.groups for place in group.readers}
    sums = (
        node.op_type in ("Conv", "ConvTranspose")
        and 1 < (attribute(node, "group") or 1) < node.inputs[0].shape[1]
    )
    passed = (
        set()
        if sums
        else {
            number
            for output in node.outputs
            for _, line_of in _lines(structure, output)
            for number in line_of
        }
    )
    for index, value in enumerate(node.inputs):
        if (
            value is None
            or edit.tensor(value) is not None
            or (node, value) in readers
            or value.dtype != ir.DataType.FLOAT
        ):
            continue
        for axis, line_of in _lines(structure, value):
            ends = np.array([number in gone and number not in passed for number in line_of])
            if not ends.any():
                continue
            shape = [-1 if place == axis else 1 for place in range(len(value.shape))]
            mask = edit.add_constant(
                structure.model.graph, (~ends).astype(np.float32).reshape(shape), names.fresh("mask")
            )
            product = ir.node("Mul", [node.inputs[index], mask])
            product.outputs[0].name = names.fresh("masked")
            structure.model.graph.insert_before(node, product)
            node.replace_input_with(index, product.outputs[0])


def _lines(structure: Structure, value: ir.Value) -> list[tuple[int, list[int]]]:
    """The axes of a value that have channels, and the classes along them."""
    found = (line(structure.classes[block]) for block in structure.flow.values.get(value, ()))
    return [(each[0], each[1].tolist()) for each in found if each is not None]


def check_exact(
    model: ir.Model,
    ratios: Sequence[float] = (0.3, 0.7),
    feeds: Mapping[str, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    alone: int = 3,
) -> list[Group]:
    """Assert for random choices in all groups that are exact, and in some alone, that removing is not seeing. Gives the groups."""
    groups = [group for group in find_groups(model.clone()).groups if group.inexact is None]
    data = random_feeds(model) if feeds is None else feeds
    choices = [choice(groups, ratio, seed) for seed, ratio in enumerate(ratios)]
    single = groups[:: max(len(groups) // alone, 1)] if len(groups) > 1 else []
    for kept in [*choices, *(choice([group], 0.5, 7) for group in single)]:
        expected = reference(unseen(model, kept), data)
        for wanted, given in zip(expected, reference(pruned(model, kept), data), strict=True):
            wanted, given = (each.astype(np.float64) for each in (wanted, given))
            scale = max(float(np.abs(wanted).max()), 1e-30) if wanted.size else 1.0
            np.testing.assert_allclose(given, wanted, rtol=0, atol=tolerance * scale, strict=True)
    return groups
