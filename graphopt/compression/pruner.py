"""Makes smaller versions of one model: its groups, what their channels are worth, and models without some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graphopt.accuracy.calibration import collect
from graphopt.compiling.presets import run_preset
from graphopt.compression.reconstruction import reconstruct
from graphopt.errors import GraphoptError, ModelError
from graphopt.feeds.data import Dataset
from graphopt.model import edit, normalise
from graphopt.model.statistics import macs
from graphopt.passes import COMPILED_GROWTH
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.prune.groups import GONE, Group, find_groups
from graphopt.passes.prune.importance import COMPARABLE, IMPORTANCE, OBSERVES, Evidence, Scores, point
from graphopt.passes.prune.removal import Kept, remove
from graphopt.passes.prune.schedule import SCHEDULES, Candidate
from graphopt.passes.prune.separate import separate
from graphopt.passes.prune.shuffle import close_shuffles, open_shuffles
from graphopt.passes.shapes import Shapes
from graphopt.rewriting.pipeline import Context

if TYPE_CHECKING:
    from graphopt.backends.estimate import Estimate

Progress = Callable[[str], None]

LEAST_OPSET = 13
"""From which on sizes and places are inputs."""

DEFAULT_WITH_DATA, DEFAULT_WITHOUT = "correlation", "l2"


@dataclass(frozen=True)
class Pruning:
    """How a model is pruned: which importance, which schedule, groups that stay by patterns of names, and rounding of widths."""

    importance: str | None = None
    schedule: str = "uniform"
    round_to: int = 1
    protect: tuple[str, ...] = ()
    correct: bool = True
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of free dimensions, where cycles are estimated; others count as 1."""

    def __post_init__(self) -> None:
        if self.importance is not None and self.importance not in IMPORTANCE:
            raise GraphoptError(
                f"unknown importance {self.importance!r}; choose one of {', '.join(IMPORTANCE)}"
            )
        if self.schedule not in SCHEDULES:
            raise GraphoptError(f"unknown schedule {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")
        if self.seed < 0:
            raise GraphoptError(f"a seed of {self.seed} is none; give 0 or more")
        if self.round_to < 1:
            raise GraphoptError("widths are rounded to a multiple of 1 or more")


@dataclass(frozen=True)
class Pruned:
    """A smaller model, and which channels of each group it has."""

    model: ir.Model
    kept: Kept


class Pruner:
    """Optimises a model, which it takes over, and observes it on data, once. Raises GraphoptError."""

    def __init__(
        self,
        model: ir.Model,
        settings: Pruning,
        data: Dataset | None,
        samples: int,
        progress: Progress,
        workers: int = 1,
    ) -> None:
        self.settings, self._data, self._samples = settings, data, samples
        self._progress, self._workers = progress, workers
        progress("optimize")
        prepare(model)
        _require_finite(model)
        self._model = model
        require_matches(model, settings.protect)
        self.structure = find_groups(model, self._is_protected)
        self.groups = list(self.structure.groups)
        self.importance = settings.importance or (DEFAULT_WITHOUT if data is None else DEFAULT_WITH_DATA)
        self._costs = {group.name: self._cost(group) for group in self.groups}
        self._scores: dict[str, Scores] | None = None

    @property
    def original(self) -> ir.Model:
        """The optimised model, with all channels."""
        return self._model

    @property
    def corrects(self) -> bool:
        """Whether layers are fitted to what they gave before."""
        return self._data is not None and self.settings.correct

    def of(self, model: ir.Model) -> Pruner:
        """One with the same settings and data for another model."""
        return Pruner(model.clone(), self.settings, self._data, self._samples, self._progress, self._workers)

    def choose(self, ratio: float) -> Kept:
        """Which channels stay when a share of them goes, or of their costs where groups compete."""
        scores = self._scored()
        comparable = self.importance in COMPARABLE
        candidates = [
            Candidate(group, scores[group.name], self._costs[group.name], comparable) for group in self.groups
        ]
        return SCHEDULES[self.settings.schedule](candidates, ratio, self.settings.round_to)

    def make(self, kept: Kept, correct: bool | None = None) -> Pruned:
        """The model without the other channels; what is left makes up for them where there is data."""
        model = self._model.clone()
        left = remove(find_groups(model, self._is_protected), kept)
        if self._data is not None and (self.corrects if correct is None else correct):
            reconstruct(
                self._model, model, left, self._data, self._samples, self._progress, self.settings.seed
            )
        close_shuffles(model)
        Cleanup().apply(model, Context())
        return Pruned(model, kept)

    def _cost(self, group: Group) -> Callable[[int], float]:
        """What a group costs with so many channels: multiply-adds, or cycles where the schedule asks for them."""
        if self.settings.schedule == "latency":
            return cache(partial(cycles, group, _estimate(self.settings.sizes)))
        a_channel = max(cost(group), 1e-30)
        return lambda width: a_channel * width

    def _is_protected(self, node: ir.Node) -> bool:
        return matches(node, self.settings.protect)

    def _scored(self) -> dict[str, Scores]:
        if self._scores is None:
            evidence = self._evidence()
            self._progress("rank channels")
            measure = IMPORTANCE[self.importance]
            self._scores = {
                group.name: _ranked(group, measure(group, evidence), evidence) for group in self.groups
            }
        return self._scores

    def _evidence(self) -> Evidence:
        """What the importance needs to have observed."""
        if self.importance == "taylor":
            return Evidence(slopes=self._slopes(), seed=self.settings.seed)
        kind = OBSERVES.get(self.importance)
        if kind is None:
            return Evidence(seed=self.settings.seed)
        data = self._require_data()
        points = {point(place): place for group in self.groups for place in group.readers}
        observers: dict[Any, Any] = {where: kind(where[1]) for where in points if where[0]}
        names: dict[str, list[Any]] = {}
        for where, observer in observers.items():
            names.setdefault(where[0], []).append(observer)
        if names:
            collect(self._model, names, data, self._samples, self._progress, self._workers)
        field = "histograms" if self.importance == "entropy" else "moments"
        return Evidence(**{field: observers}, seed=self.settings.seed)

    def _slopes(self) -> Mapping[str, NDArray[np.float32]]:
        from graphopt.training.slopes import slopes

        return slopes(self._model, self._require_data(), self._samples, self._progress, self.settings.seed)

    def _require_data(self) -> Dataset:
        if self._data is None:
            raise GraphoptError(f"the importance {self.importance} needs --calib DATA")
        return self._data


def prepare(model: ir.Model) -> None:
    """Bring a model into the form in which channels can be followed, in place."""
    run_preset(model, "O2", (), Context())
    if any(_computes_weights(node) for node in model.graph):
        Shapes(max_growth=COMPILED_GROWTH).apply(model, Context())
    if model.opset_imports[""] < LEAST_OPSET:
        ConvertOpset(LEAST_OPSET).apply(model, Context())
        normalise(model)
        run_preset(model, "O2", (), Context())
    edit.name_nodes(model.graph)
    open_shuffles(model)
    separate(model)


def _computes_weights(node: ir.Node) -> bool:
    """Whether the weights of a product or convolution are a constant that takes a node, as in models without data."""
    weight = node.inputs[1] if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} else None
    producer = None if weight is None else weight.producer()
    return producer is not None and producer.op_type == "ConstantOfShape"


def cost(group: Group) -> float:
    """The multiply-adds that one channel takes where it is made and where it is read."""
    return sum(
        macs(place.node)
        * float(np.bincount(place.weight.units[place.weight.units != GONE]).max())
        / len(place.weight.units)
        for place in (*group.makers, *group.readers)
    )


def cycles(group: Group, estimate: Estimate, width: int) -> float:
    """What the nodes that make or read the channels of a group take when it has `width` of them, and all other groups are whole."""
    shapes: dict[tuple[ir.Node, ir.Value], list[int]] = {}
    for place in (*group.makers, *group.readers):
        tensor = edit.tensor(place.weight.value)
        assert tensor is not None
        shape = shapes.setdefault((place.node, place.weight.value), list(tensor.shape.numpy()))
        units = place.weight.units
        inside = np.bincount(units[units != GONE])
        shape[place.weight.axis] = int((units == GONE).sum() + width * inside.max())
    return sum(estimate.cycles(node, shape) for (node, _), shape in shapes.items())


def _estimate(sizes: Mapping[str, int]) -> Estimate:
    from graphopt.backends.estimate import Estimate
    from graphopt.backends.targets import native

    return Estimate(native().core, sizes)


def _ranked(group: Group, scores: Scores, evidence: Evidence) -> Scores:
    """Scores, those of weights where nothing was observed of a group."""
    return (
        scores if np.isfinite(scores).all() and scores.any() else IMPORTANCE[DEFAULT_WITHOUT](group, evidence)
    )


def matches(node: ir.Node, patterns: Sequence[str]) -> bool:
    """Whether one of some patterns is that of the name or the operator of a node."""
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in (node.name or "", node.op_type))


def require_matches(model: ir.Model, protect: Sequence[str]) -> None:
    """Raises GraphoptError for a pattern that nothing matches."""
    names = [text for node in model.graph for text in (node.name or "", node.op_type)]
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GraphoptError(f"no node or operator of the model matches {pattern!r}")


def _require_finite(model: ir.Model) -> None:
    for name, value in model.graph.initializers.items():
        array = edit.constant(value)
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"the initializer {name!r} has NaN or infinity among its numbers: it cannot be ranked"
            )
