"""Makes quantised versions of one model, all from the same observations: with some layers left float, or some techniques left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from graphopt.accuracy.calibration import Observer, collect
from graphopt.compiling.presets import run_preset
from graphopt.errors import GraphoptError
from graphopt.feeds.data import Dataset
from graphopt.model import edit
from graphopt.model.attributes import attribute
from graphopt.passes.cleanup import Cleanup
from graphopt.passes.codes import Decode
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.quantize.dynamic import dynamic_products
from graphopt.passes.quantize.equalise import equalise
from graphopt.passes.quantize.observations import Observations
from graphopt.passes.quantize.observers import Gram
from graphopt.passes.quantize.plan import Plan, make_plan
from graphopt.passes.quantize.qdq import correct_biases, insert
from graphopt.passes.quantize.ranges import METHODS, parameters
from graphopt.passes.quantize.smooth import smooth
from graphopt.passes.quantize.untie import untie
from graphopt.passes.quantize.weights import BLOCK_OPSET, int4_weights, int8_weights, is_matrix
from graphopt.rewriting.pipeline import Context

Progress = Callable[[str], None]

STATIC, DYNAMIC, WEIGHTS8, WEIGHTS4, FLOAT = "int8", "int8-dynamic", "int8-weights", "int4-weights", "float"

SCHEMES = (STATIC, DYNAMIC, WEIGHTS8, WEIGHTS4, FLOAT)

LEARN = "learn"

TECHNIQUES = ("equalise", "smooth", "correct", "reconstruct", LEARN)
"""In the order in which they are tried."""

LEAST_OPSET = 13
"""From which on a scale may belong to a channel."""

LEAST_IR_VERSION = 10
"""From which on integers may have four bits."""


@dataclass(frozen=True)
class Recipe:
    """How a model is quantised: `scheme` for all layers, or the first of `layers` whose pattern matches name or operator."""

    scheme: str = STATIC
    layers: tuple[tuple[str, str], ...] = ()
    method: str = "mse"
    block: int = 32
    techniques: tuple[str, ...] = ("smooth", "correct", "reconstruct")

    def __post_init__(self) -> None:
        for scheme in (self.scheme, *(scheme for _, scheme in self.layers)):
            _require("scheme", scheme, SCHEMES)
        _require("method", self.method, METHODS)
        for technique in self.techniques:
            _require("technique", technique, TECHNIQUES)
        if self.block < 1:
            raise GraphoptError(f"a block of {self.block} weights is none; give 16, 32, 64 or 128")

    @property
    def schemes(self) -> set[str]:
        """All that some layer may have."""
        return {self.scheme, *(scheme for _, scheme in self.layers)}

    def scheme_of(self, name: str, operators: AbstractSet[str]) -> str:
        """Of the layer of a name that has, or had, one of these operators."""
        for pattern, scheme in self.layers:
            if any(fnmatchcase(each, pattern) for each in (name, *operators)):
                return scheme
        return self.scheme

    def require_matches(self, model: ir.Model) -> None:
        """Raises GraphoptError for a pattern that no node of the model has."""
        known = {text for node in model.graph for text in (node.name or "", node.op_type)}
        for pattern, scheme in self.layers:
            if not any(fnmatchcase(text, pattern) for text in known):
                raise GraphoptError(f"no node or operator of the model matches {pattern!r} (={scheme})")


def _require(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise GraphoptError(f"unknown {what} {name!r}; choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Made:
    """A quantised model: its nodes on integers, and those that could have been and are not, with reasons."""

    model: ir.Model
    quantized: list[str]
    left_out: dict[str, str]


class Quantizer:
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
        self.recipe = recipe
        self._operators = {node.name: node.op_type for node in model.graph if node.name}
        self._data, self._samples, self._progress, self._workers = data, samples, progress, workers
        progress("optimize")
        Decode().apply(model, Context())
        run_preset(model, "O2", (), Context())
        opset = BLOCK_OPSET if WEIGHTS4 in recipe.schemes else LEAST_OPSET
        if model.opset_imports[""] < opset:
            ConvertOpset(opset).apply(model, Context())
        model.ir_version = max(model.ir_version, LEAST_IR_VERSION)
        edit.name_nodes(model.graph)
        untie(model, lambda node: self._scheme_of(node) != FLOAT)
        self._plain = model
        self._equalised: ir.Model | None = None
        self._observed: dict[bool, Observations] = {}
        self._products: dict[str, Gram] | None = None
        self._made: dict[tuple[frozenset[str], tuple[str, ...]], Made] = {}

    @property
    def techniques(self) -> list[str]:
        """Those of the recipe that its schemes know, in the order in which they are applied."""
        known = {STATIC: ("equalise", "smooth", "correct", LEARN), WEIGHTS4: ("reconstruct", LEARN)}
        usable = {each for scheme in self.recipe.schemes for each in known.get(scheme, ())}
        return [each for each in TECHNIQUES if each in usable and each in self.recipe.techniques]

    @property
    def layers(self) -> list[str]:
        """The names of all that can be on integers, in the order of the model."""
        plan = self._plan(self._plain)
        return [node.name or "" for node in (*plan.anchors, *plan.tables)]

    def make(self, techniques: Sequence[str] | None = None, floats: Sequence[str] = ()) -> Made:
        """The model with these techniques, by default all of the recipe, and these layers on floats."""
        chosen = frozenset(self.recipe.techniques if techniques is None else techniques)
        if (chosen, tuple(floats)) not in self._made:
            self._made = {(chosen, tuple(floats)): self._make(chosen, frozenset(floats))}
        return self._made[chosen, tuple(floats)]

    def _make(self, chosen: frozenset[str], floats: frozenset[str]) -> Made:
        model = self._base("equalise" in chosen).clone()
        for scheme, write in self._writers(chosen).items():
            if scheme in self.recipe.schemes:
                write(model, self._plan(model, scheme, floats))
        Cleanup().apply(model, Context())
        if LEARN in chosen and self._data is not None:
            self._learn(self._teacher(chosen, floats), model, self._data)
        plan = self._plan(self._plain, None, floats)
        return Made(model, [node.name or "" for node in (*plan.anchors, *plan.tables)], plan.left_out)

    def _plan(self, model: ir.Model, scheme: str | None = None, floats: frozenset[str] = frozenset()) -> Plan:
        """Of the layers that have a scheme, or any but float, and are none of `floats`."""

        def excluded(node: ir.Node) -> bool:
            found = self._scheme_of(node)
            return node.name in floats or (found == FLOAT if scheme is None else found != scheme)

        return make_plan(model.graph, excluded)

    def _scheme_of(self, node: ir.Node) -> str:
        name = node.name or ""
        return self.recipe.scheme_of(name, {node.op_type, self._operators.get(name, node.op_type)})

    def warnings(self, few: int) -> list[str]:
        """What is odd about the data; fewer samples than `few` say little."""
        found = [] if self.layers else ["nothing in this model can be quantised"]
        if self._data is None or STATIC not in self.recipe.schemes:
            return found
        if len(self._data) < few:
            found.append(
                f"only {len(self._data)} samples: ranges of activations say little; {few} or more are better"
            )
        elements = self._observations("equalise" in self.recipe.techniques).elements
        constant = [name for name, each in elements.items() if each.low == each.high]
        if constant:
            found.append(f"{len(constant)} value(s) never changed on this data, {constant[0]!r} for one")
        return found

    def _teacher(self, chosen: frozenset[str], floats: frozenset[str]) -> ir.Model:
        """The floats that are rounded: with channels evened out, but with biases as they were."""
        model = self._base("equalise" in chosen).clone()
        if "smooth" in chosen and STATIC in self.recipe.schemes:
            channels = self._observations("equalise" in chosen).channels
            smooth(model, self._plan(model, STATIC, floats), channels)
        return model

    def _learn(self, teacher: ir.Model, model: ir.Model, data: Dataset) -> None:
        from graphopt.training.rounding import learn_rounding

        learn_rounding(teacher, model, data, samples=self._samples, progress=self._progress)

    def _writers(self, techniques: frozenset[str]) -> dict[str, Callable[[ir.Model, Plan], None]]:
        """What writes each scheme into a model."""
        return {
            STATIC: lambda model, plan: self._write_static(model, plan, techniques),
            DYNAMIC: dynamic_products,
            WEIGHTS8: int8_weights,
            WEIGHTS4: lambda model, plan: self._write_blocks(model, plan, techniques),
        }

    def _write_static(self, model: ir.Model, plan: Plan, techniques: frozenset[str]) -> None:
        seen = self._observations("equalise" in techniques)
        smoothed = smooth(model, plan, seen.channels) if "smooth" in techniques else {}
        observed = seen.with_channels({(value.name or "", -1): each for value, each in smoothed.items()})
        if "correct" in techniques:
            correct_biases(model, plan, observed.means)
        leaders = {plan.group(value) for value in plan.values}
        method = METHODS[self.recipe.method]
        ranges = {
            leader: smoothed[leader].range if leader in smoothed else method(seen.of_group(plan, leader))
            for leader in leaders
        }
        insert(model, plan, {leader: parameters(found) for leader, found in ranges.items()})

    def _write_blocks(self, model: ir.Model, plan: Plan, techniques: frozenset[str]) -> None:
        products = self._grams() if "reconstruct" in techniques and self._data is not None else {}

        def of(node: ir.Node) -> np.ndarray | None:
            value = None if attribute(node, "transA") else node.inputs[0]
            found = None if value is None else products.get(value.name or "")
            return None if found is None else found.products

        int4_weights(model, plan, self.recipe.block, of)

    def _base(self, equalised: bool) -> ir.Model:
        if not equalised:
            return self._plain
        if self._equalised is None:
            self._equalised = self._plain.clone()
            equalise(self._equalised, self._plan(self._equalised, STATIC))
        return self._equalised

    def _observations(self, equalised: bool) -> Observations:
        """Of everything that may become integer, from one pass over the data."""
        if equalised not in self._observed:
            model = self._base(equalised)
            found = Observations.for_plan(self._plan(model, STATIC))
            self._collect(model, found.points)
            self._observed[equalised] = found
        return self._observed[equalised]

    def _grams(self) -> dict[str, Gram]:
        """Of what products with blocks read."""
        if self._products is None:
            anchors = self._plan(self._plain, WEIGHTS4).anchors
            plain = [node for node in anchors if is_matrix(node) and not attribute(node, "transA")]
            read = {node.inputs[0].name for node in plain if node.inputs[0]}
            self._products = {name: Gram() for name in read if name}
            self._collect(self._plain, {name: [gram] for name, gram in self._products.items()})
        return self._products

    def _collect(self, model: ir.Model, points: Mapping[str, list[Observer]]) -> None:
        if self._data is None:
            raise GraphoptError(f"the scheme {STATIC} needs calibration data")
        if points:
            collect(model, points, self._data, self._samples, self._progress, self._workers)
