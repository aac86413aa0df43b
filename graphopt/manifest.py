"""What an artifact says about itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from graphopt.pipeline import Report
from graphopt.verify import Verdict

if TYPE_CHECKING:
    from graphopt.backends.compiler import Library
    from graphopt.backends.targets import Target


def describe(
    name: str, target: Target, library: Library, report: Report, verdict: Verdict | None
) -> dict[str, Any]:
    """The manifest; `write` adds format, sizes and hashes. Without a verdict nothing was compared."""
    verification: dict[str, Any] = {"verified": False, "reason": "not compared with ONNX Runtime"}
    if verdict is not None and verdict.verified:
        verification = {"verified": True}
    elif verdict is not None:
        verification["reason"] = verdict.not_verified
    return {
        "graphopt": version("graphopt"),
        "tvm": version("apache-tvm"),
        "name": name,
        "target": {"name": target.name, "arch": target.arch, "features": list(target.features)},
        "variants": library.variants,
        "kernels": library.layers,
        "report": {"applied": dict(sorted(report.applied.items()))},
        "verification": verification,
    }
