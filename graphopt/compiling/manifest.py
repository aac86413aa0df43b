"""What an artifact says about itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from graphopt.accuracy.verify import Verdict
from graphopt.artifacts.artifact import Build
from graphopt.rewriting.pipeline import Report

if TYPE_CHECKING:
    from graphopt.backends.compiler import Library
    from graphopt.backends.targets import Target

FLOAT32 = "float32"


def describe(
    name: str,
    report: Report,
    target: Target,
    library: Library,
    verdict: Verdict | None,
    precision: str = FLOAT32,
) -> Build:
    """A build for an artifact. Without a verdict nothing was compared. A precision other than float32 is told."""
    verification: dict[str, Any] = {"verified": False, "reason": "not compared with ONNX Runtime"}
    if verdict is not None and verdict.verified:
        verification = {"verified": True}
    elif verdict is not None:
        verification["reason"] = verdict.not_verified
    manifest = {
        "graphopt": version("graphopt"),
        "tvm": version("apache-tvm"),
        "name": name,
        "target": {"name": target.name, "arch": target.arch, "features": list(target.demands)},
        "variants": library.variants,
        "kernels": library.layers,
        "report": {"applied": dict(sorted(report.applied.items()))},
        "verification": verification,
    }
    if precision != FLOAT32:
        manifest["precision"] = precision
    return Build(manifest, library.shared, library.weights, library.segments)
