"""Resize and Upsample: one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.training.executor.operator import Compute, Maker, Node, Tensor, integers, require
from graphopt.training.executor.sampling import ORIGINS, Axis, Sampling

CHOOSES_COORDINATES = 11
"""Opset from which a Resize says how coordinates are transformed; before, they are only scaled."""


def _resize(node: Node) -> Compute:
    if node.version < CHOOSES_COORDINATES:
        return _upsample(node)
    sampling, chosen = _sampling(node), node.get("axes")

    def resize(
        x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        places = list(range(x.ndim) if chosen is None else chosen)
        extents = [x.shape[place] for place in places]
        if sizes is not None:
            after = integers(sizes)
            factors = [new / old for new, old in zip(after, extents, strict=True)]
        else:
            factors = _factors(scales)
            after = [int(old * factor) for old, factor in zip(extents, factors, strict=True)]
        parts = [0.0] * len(places) + [1.0] * len(places)
        if sampling.transform == "tf_crop_and_resize" and roi is not None:
            parts = roi.tolist()
        starts, ends = parts[: len(places)], parts[len(places) :]
        axes = [Axis(*each) for each in zip(extents, after, factors, starts, ends, strict=True)]
        return _along_all(x, sampling, places, axes)

    return resize


def _upsample(node: Node) -> Compute:
    """Positions are scaled; the nearest element is the one before, or the one behind where an axis becomes shorter."""
    mode, fixed = node.get("mode", "nearest"), node.get("scales")
    require(mode in ("nearest", "linear"), f"its mode is {mode!r}")

    def resize(x: Tensor, scales: Tensor | None = None) -> Tensor:
        for place, factor in enumerate(fixed or _factors(scales)):
            sampling = Sampling(mode, "asymmetric", "ceil" if factor < 1 else "floor")
            axis = Axis(x.shape[place], int(x.shape[place] * factor), factor)
            x = _along_all(x, sampling, [place], [axis])
        return x

    return resize


def _sampling(node: Node) -> Sampling:
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    transform = node.get("coordinate_transformation_mode", "half_pixel")
    require(not node.get("antialias", 0), "its attribute antialias is 1")
    require(policy == "stretch", f"its keep_aspect_ratio_policy is {policy!r}")
    require(transform in ORIGINS, f"its coordinate_transformation_mode is {transform!r}")
    return Sampling(
        node.get("mode", "nearest"),
        transform,
        node.get("nearest_mode", "round_prefer_floor"),
        node.get("cubic_coeff_a", -0.75),
        bool(node.get("exclude_outside", 0)),
        node.get("extrapolation_value", 0.0) if transform == "tf_crop_and_resize" else None,
    )


def _along_all(x: Tensor, sampling: Sampling, places: Sequence[int], axes: Sequence[Axis]) -> Tensor:
    for place, axis in zip(places, axes, strict=True):
        if axis != Axis(axis.before, axis.before, 1.0):
            x = sampling.along(x, place, axis)
    return x


def _factors(scales: Tensor | None) -> list[float]:
    return [] if scales is None else scales.tolist()


OPERATORS: dict[str, Maker] = {"Resize": _resize, "Upsample": _upsample}
