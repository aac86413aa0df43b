"""What differs between kinds of machine while a model is lowered: operators, kernel families, and what a kernel becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from graphopt.backends.codegen.builder import Family, KernelBuilder
from graphopt.backends.codegen.function import kernel_function
from graphopt.backends.codegen.program import Buffer, Launch
from graphopt.backends.lower.operator import Operator, Varying


@dataclass(frozen=True)
class Function:
    """A function, the buffers its parameters stand for, and on how many threads a device runs it."""

    function: Any
    buffers: Sequence[Buffer]
    launch: Launch | None = None


def one_function(builder: KernelBuilder) -> list[Function]:
    """The kernel as it is: one function, called by a driver."""
    return [Function(*kernel_function(builder))]


@dataclass(frozen=True)
class Machine:
    """A kind of machine. The default is a CPU."""

    operators: Mapping[str, Mapping[str, Operator | Varying]]
    builder: Callable[[], KernelBuilder] = KernelBuilder
    functions: Callable[[KernelBuilder], Sequence[Function]] = one_function
    """The functions of a finished kernel, in the order in which they run."""
    twins: Mapping[Any, Any] = field(default_factory=dict)
    """Families of kernels, and parts of kernels, that this machine has others of, which are called the same way."""

    def twin(self, family: Family) -> Family:
        """What this machine has in place of a family."""
        return cast("Family", self.twins.get(family, family))
