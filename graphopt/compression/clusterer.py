"""Makes clustered versions of one model, all from the same observations: with fewer values, or some techniques left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.calibration import Observer, collect
from graphopt.compiling.presets import run_preset
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.model import edit
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.cluster.codebook import MOST, Size
from graphopt.passes.cluster.coded import RECONSTRUCT, SENSITIVITY, Coded, encode
from graphopt.passes.cluster.matrices import Geometry, Moments, matrices
from graphopt.passes.cluster.plan import Target, make_plan
from graphopt.passes.cluster.writer import NARROW, NARROW_OPSET, WIDE_OPSET, write_codes, write_levels
from graphopt.passes.codes import Decode
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.quantize import correct
from graphopt.rewriting.pipeline import Context

Progress = Callable[[str], None]

CORRECT = "correct"

TECHNIQUES = (RECONSTRUCT, SENSITIVITY, CORRECT)
"""In the order in which they are tried."""

NARROW_IR_VERSION = 10
"""From which on integers may have four bits."""

LEAST, CLUSTERS = 2, 32


@dataclass(frozen=True)
class Recipe:
    """How many values the weights of a tensor have: `clusters`, or as few as give the weights `sqnr_db`.

    `group` output channels share them, by default all of a tensor; `entropy` is the error, in units of that of k-means, that a bit
    saved may add.
    """

    clusters: int | None = None
    sqnr_db: float | None = None
    group: int | None = None
    entropy: float = 0.0
    exclude: tuple[str, ...] = ()
    techniques: tuple[str, ...] = TECHNIQUES

    def __post_init__(self) -> None:
        if self.clusters is not None and not LEAST <= self.clusters <= MOST:
            raise GraphoptError(f"{self.clusters} clusters: give a number from {LEAST} to {MOST}")
        if self.clusters is not None and self.sqnr_db is not None:
            raise GraphoptError("give the number of clusters, or the quality of the weights, not both")
        if self.group is not None and self.group < 1:
            raise GraphoptError(f"a group of {self.group} channels is none")
        if not (np.isfinite(self.entropy) and self.entropy >= 0):
            raise GraphoptError(f"the weight of the entropy is {self.entropy}; it is a number from 0 on")
        for technique in self.techniques:
            if technique not in TECHNIQUES:
                raise GraphoptError(f"unknown technique {technique!r}; choose one of {', '.join(TECHNIQUES)}")

    @property
    def size(self) -> Size:
        """Of every codebook."""
        return Size(self.clusters or CLUSTERS, self.sqnr_db, self.entropy)

    def require_matches(self, model: ir.Model) -> None:
        """Raises GraphoptError for a pattern that no node of the model has."""
        known = {text for node in model.graph for text in (node.name or "", node.op_type)}
        for pattern in self.exclude:
            if not any(fnmatchcase(text, pattern) for text in known):
                raise GraphoptError(f"no node or operator of the model matches {pattern!r}")


@dataclass(frozen=True)
class Clustered:
    """A tensor by its name: how many weights it has, of how many values, and the bits a code takes at least."""

    name: str
    weights: int
    values: int
    bits: float


@dataclass(frozen=True)
class Made:
    """A clustered model, and its tensors."""

    model: ir.Model
    tensors: list[Clustered] = field(default_factory=list)


class Clusterer:
    """Optimises a model, which it takes over, and observes it on data, once. Raises GraphoptError."""

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        data: Dataset | None,
        samples: int,
        progress: Progress,
        workers: int = 1,
    ) -> None:
        recipe.require_matches(model)
        self.recipe, self._data, self._progress = recipe, data, progress
        self._operators = {node.name: node.op_type for node in model.graph if node.name}
        progress("optimize")
        Decode().apply(model, Context())
        run_preset(model, "O2", (), Context())
        edit.name_nodes(model.graph)
        self._model = model
        self._plan = make_plan(model, self._is_excluded)
        self._arrays = {target.name: target.array for target in self._plan.targets}
        self._observed = {} if data is None else self._observe(data, samples, workers)
        self._made: dict[tuple[Size, tuple[str, ...]], Made] = {}

    @property
    def techniques(self) -> list[str]:
        """Those of the recipe, which need data, in the order in which they are tried."""
        usable = self._observed and [each for each in TECHNIQUES if each in self.recipe.techniques]
        return list(usable)

    @property
    def left_out(self) -> dict[str, str]:
        """Nodes whose weights stay as they are, and why."""
        return self._plan.left_out

    @property
    def targets(self) -> Sequence[Target]:
        """What is clustered."""
        return self._plan.targets

    def make(self, techniques: Sequence[str], clusters: int | None = None) -> Made:
        """The model with these techniques and, if given, another number of clusters than that of the recipe."""
        size = self.recipe.size if clusters is None else replace(self.recipe.size, clusters=clusters)
        key = size, tuple(techniques)
        if key not in self._made:
            self._made = {key: self._make(size, techniques)}
        return self._made[key]

    def _make(self, size: Size, techniques: Sequence[str]) -> Made:
        coded: dict[str, Coded] = {}
        for number, target in enumerate(self._plan.targets):
            self._progress(f"cluster: tensor {number + 1} of {len(self._plan.targets)}")
            moments = self._observed.get(target.name)
            fitting = replace(size, whole=target.is_integer)
            coded[target.name] = encode(
                self._arrays[target.name], target.axis, fitting, self.recipe.group, moments, techniques
            )
        model = self._model.clone()
        if CORRECT in techniques:
            self._correct_biases(model, coded)
        floats = {target.name for target in self._plan.targets if not target.is_integer}
        _make_room(model, [coded[name] for name in floats])
        for name, each in coded.items():
            value = model.graph.initializers[name]
            if name in floats:
                write_codes(model, value, each)
            else:
                write_levels(value, each)
        Cleanup().apply(model, Context())
        tensors = [
            Clustered(name, each.codes.size, each.values.size, each.bits / each.codes.size)
            for name, each in coded.items()
        ]
        return Made(model, tensors)

    def _correct_biases(self, model: ir.Model, coded: Mapping[str, Coded]) -> None:
        """Take the mean of what other weights change out of the results of products on floats."""
        names = edit.Names(model)
        for name, moments in self._observed.items():
            [use] = model.graph.initializers[name].uses()
            if use.node.op_type == "DequantizeLinear":
                continue
            change = coded[name].weights - self._arrays[name]
            moved = matrices(change, coded[name].axis, len(moments.means))
            shifts = np.einsum("gdo,gd->go", moved, moments.means).reshape(-1)
            correct.subtract(model.graph, use.node, shifts, names)

    def _observe(self, data: Dataset, samples: int, workers: int) -> dict[str, Moments]:
        """What the weights of products are multiplied by, by their names."""
        products = {each.name: node for each in self._plan.targets if (node := each.product) is not None}
        found = {
            name: Moments(Geometry.of(node, self._arrays[name].shape)) for name, node in products.items()
        }
        points: dict[str, list[Observer]] = {}
        for name, node in products.items():
            assert node.inputs[0] is not None
            points.setdefault(node.inputs[0].name or "", []).append(found[name])
        if points and self.recipe.techniques:
            collect(self._model, points, data, samples, self._progress, workers)
        return {name: moments for name, moments in found.items() if moments.count}

    def _is_excluded(self, node: ir.Node) -> bool:
        name = node.name or ""
        texts = {name, node.op_type, self._operators.get(name, node.op_type)}
        return any(fnmatchcase(text, pattern) for pattern in self.recipe.exclude for text in texts)


def _make_room(model: ir.Model, coded: Sequence[Coded]) -> None:
    """Raise the opset to one that has what codes need."""
    narrow = any(each.values.shape[1] <= NARROW for each in coded)
    least = NARROW_OPSET if narrow else WIDE_OPSET
    if coded and model.opset_imports.get("", least) < least:
        ConvertOpset(least).apply(model, Context())
    if narrow:
        model.ir_version = max(model.ir_version, NARROW_IR_VERSION)
