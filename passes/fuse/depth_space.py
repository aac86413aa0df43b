"""DepthToSpace and SpaceToDepth written as Reshape, Transpose, Reshape."""

from dataclasses import dataclass

import onnx_ir as ir

from graphopt.model.attributes import attribute
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.rewrite import Match, Refuse, Replacement, Rule

SPLIT = Op("Reshape", "x", "split_shape")
MOVED = Op("Transpose", SPLIT)
JOINED = Op("Reshape", MOVED, "joined_shape")


@dataclass(frozen=True)
class Form:
    """One way to write an operator: how the image is split into six axes, and how these are permuted and joined.

    Letters are sizes: n c h w of the smaller image, b of the block; a group is one axis.
    """

    op_type: str
    source: str
    split: str
    joined: str
    mode: str | None = None

    @property
    def perm(self) -> tuple[int, ...]:
        return tuple(self.split.index(axis) for axis in self.joined.replace(" ", ""))


FORMS = [
    Form("DepthToSpace", "n abc h w", "nabchw", "n c ha wb", "DCR"),
    Form("DepthToSpace", "n cab h w", "ncabhw", "n c ha wb", "CRD"),
    Form("SpaceToDepth", "n c ha wb", "nchawb", "n abc h w"),
]
"""``a`` and ``b`` both are the block size."""


def _rewrite(match: Match) -> Replacement:
    perm = attribute(match.node(MOVED), "perm")
    form = next((form for form in FORMS if form.perm == perm), None)
    if form is None:
        return None
    split = match.node(SPLIT).outputs[0].shape
    if split is None or len(split) != 6 or any(not isinstance(dim, int) for dim in split.dims[1:]):
        return Refuse("the shape is free")
    sizes = dict(zip(form.split, split.dims, strict=True))
    if not (_fits(match["x"], form.source, sizes) and _fits(match.root.outputs[0], form.joined, sizes)):
        return Refuse("the axes are split or joined in another way")
    if sizes["a"] != sizes["b"]:
        return Refuse("the blocks are not square")
    if form.mode == "CRD" and match.opset < 11:
        return Refuse("DepthToSpace has no mode before opset 11")
    mode = form.mode if form.mode != "DCR" else None
    return match.op(form.op_type, [match["x"]], blocksize=sizes["a"], mode=mode)


def _fits(value: ir.Value, groups: str, sizes: dict[str, int | ir.SymbolicDim]) -> bool:
    """Whether the shape of ``value`` is the products that ``groups`` names; the first dimension may be free."""
    names = groups.split()
    if value.shape is None or len(value.shape) != len(names):
        return False
    return all(dim == _size(group, sizes) for dim, group in zip(value.shape.dims[1:], names[1:], strict=True))


def _size(group: str, sizes: dict[str, int | ir.SymbolicDim]) -> int:
    size = 1
    for name in group:
        dim = sizes[name]
        assert isinstance(dim, int)
        size *= dim
    return size


RULES = [Rule("depth and space", JOINED, _rewrite)]
