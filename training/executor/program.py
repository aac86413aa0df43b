"""A graph as steps over named tensors: any values can be asked for, and any can be given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from graphopt.errors import GraphoptError, InputError
from graphopt.training.executor.operator import Compute, Tensor
from graphopt.training.executor.quantisation import CARRIERS

ABSENT = ""
"""The name of an input that is left out."""


@dataclass(frozen=True)
class Step:
    """One node: it computes its outputs from its inputs, in training perhaps by another function."""

    name: str
    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    compute: Compute
    learning: Compute


@dataclass(frozen=True)
class Task:
    """A step that is needed: which of its outputs are, and the values that nobody reads after it."""

    step: Step
    stored: frozenset[str]
    dropped: Sequence[str]


Plan = Sequence[Task]


@dataclass(frozen=True)
class Program:
    """The steps of a graph in an order that works; `levels` are integers that are held as floats, with their types."""

    steps: Sequence[Step]
    outputs: Sequence[str]
    levels: Mapping[str, torch.dtype]
    _plans: dict[tuple[frozenset[str], Sequence[str]], Plan] = field(default_factory=dict, repr=False)

    @cached_property
    def needs(self) -> frozenset[str]:
        """What is read, and not computed here."""
        read = {*self.outputs, *(name for step in self.steps for name in step.inputs)}
        return frozenset(read - self.produced - {ABSENT})

    @cached_property
    def produced(self) -> frozenset[str]:
        """What is computed here."""
        return frozenset(name for step in self.steps for name in step.outputs) - {ABSENT}

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str], learning: bool) -> dict[str, Tensor]:
        """The wanted values; only what they depend on is computed, from the given ones on.

        Raises InputError where a value that is needed is neither given nor computed, GraphoptError where a node fails.
        """
        key = frozenset(given), tuple(wanted)
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        values = dict(given)
        for task in self._plans[key]:
            results = zip(task.step.outputs, self._results(task.step, values, learning), strict=False)
            values.update((name, tensor) for name, tensor in results if name in task.stored)
            for name in task.dropped:
                del values[name]
        return {name: self._exact(name, values[name]) for name in wanted}

    def _plan(self, given: frozenset[str], wanted: Sequence[str]) -> Plan:
        """The steps that are needed, back to front, and what each of them is the last to read."""
        needed, kept = set(wanted) - given, {*given, *wanted}
        plan: list[Task] = []
        for step in reversed(self.steps):
            stored = needed.intersection(step.outputs)
            if not stored:
                continue
            read = set(step.inputs) - {ABSENT}
            plan.append(Task(step, frozenset(stored), sorted(read - kept)))
            needed |= read - given
            kept |= read
        missing = needed - self.produced
        if missing:
            raise InputError(f"no value is given for {', '.join(map(repr, sorted(missing)))}")
        return plan[::-1]

    def _results(self, step: Step, values: Mapping[str, Tensor], learning: bool) -> Iterable[Tensor]:
        take: Callable[[str, Tensor], Tensor] = self._as_is if step.op in READS_LEVELS else self._exact
        inputs = [None if name == ABSENT else take(name, values[name]) for name in step.inputs]
        try:
            found = (step.learning if learning else step.compute)(*inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join("absent" if each is None else str(list(each.shape)) for each in inputs)
            raise GraphoptError(f"{step.op} (node {step.name!r}) fails on {shapes}: {error}") from error
        return [found] if isinstance(found, torch.Tensor) else found

    def _exact(self, name: str, value: Tensor) -> Tensor:
        """A value with the type that the model gives it."""
        return value.to(self.levels[name]) if name in self.levels else value

    def _as_is(self, name: str, value: Tensor) -> Tensor:
        return value


READS_LEVELS = CARRIERS | {"DequantizeLinear"}
"""Operators that take integers as floats; all others get integers."""
