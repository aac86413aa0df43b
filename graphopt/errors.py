"""Every error that graphopt raises on purpose.

GraphoptError               exit code 2, the message is complete and meant for the user
├── ModelError              the model cannot be read, is invalid or is malicious
├── ShapeError              dimensions are free, contradictory or unknown
├── UnsupportedError        nodes that the chosen target cannot run; lists them
├── InputError              feeds with a wrong name, dtype or shape
├── DataError               calibration or evaluation data
├── ArtifactError           a damaged or foreign .gopt file
├── TargetError             an unknown target or a missing compiler
├── DeviceError             a model that runs elsewhere: the connection, or its process, is lost
├── TuningError             a tuning database that is damaged or lacks a required schedule, a cluster that cannot build
├── OutputError             a file that cannot be written
├── UnreachableError        a model that cannot be made as small as is asked
└── VerificationError       a result differs from its reference; exit code 1
"""

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt_runtime.errors import ArtifactError, GraphoptError, InputError

__all__ = [
    "ArtifactError",
    "DataError",
    "DeviceError",
    "GraphoptError",
    "InputError",
    "ModelError",
    "OutputError",
    "ShapeError",
    "TargetError",
    "TuningError",
    "UnreachableError",
    "UnsupportedError",
    "UnsupportedNode",
    "VerificationError",
]


class ModelError(GraphoptError):
    """The model cannot be read, breaks the ONNX specification or reaches outside its folder."""


class ShapeError(GraphoptError):
    """Dimensions are free where they must be fixed, unknown, or contradict the model."""


@dataclass(frozen=True)
class UnsupportedNode:
    """A node that a target cannot run, and why."""

    name: str
    op: str
    domain: str
    reason: str

    def __str__(self) -> str:
        op = f"{self.domain}::{self.op}" if self.domain else self.op
        return f"{op} (node {self.name!r}): {self.reason}"


class UnsupportedError(GraphoptError):
    """Some nodes cannot be compiled; ``nodes`` lists every one of them."""

    def __init__(self, nodes: Sequence[UnsupportedNode]) -> None:
        self.nodes = list(nodes)
        lines = "\n".join(f"  {node}" for node in self.nodes)
        super().__init__(f"{len(self.nodes)} node(s) are not supported:\n{lines}")


class DataError(GraphoptError):
    """Calibration or evaluation data is missing or malformed."""


class TargetError(GraphoptError):
    """The target is unknown or its compiler is missing."""


class DeviceError(GraphoptError):
    """A model that runs elsewhere cannot be reached, was refused, or crashed."""


class TuningError(GraphoptError):
    """A tuning database cannot be used, or has no measurement where one is required; or a cluster cannot build."""


class OutputError(GraphoptError):
    """A file cannot be written."""


class UnreachableError(GraphoptError):
    """A model cannot be made as small as is asked by what it is to be made smaller with."""


class VerificationError(GraphoptError):
    """A result differs from its reference by more than the tolerance."""

    exit_code = 1
