"""Which of an artifact's builds this machine runs."""

from collections.abc import Sequence
from pathlib import Path

from graphopt_runtime import cpu, gpu
from graphopt_runtime.artifact import Manifest
from graphopt_runtime.errors import ArtifactError


def suitable_build(builds: Sequence[Manifest], path: Path) -> Manifest:
    """The last build that runs here: later ones ask more of the CPU. Raises ArtifactError where none does."""
    here, flags = cpu.architecture(), cpu.cpu_flags()
    for build in reversed(builds):
        if _misfit(build, here, flags) is None:
            return build
    reasons = "; ".join(_misfit(build, here, flags) or "" for build in builds)
    advice = (
        "compile it again with an older target"
        if _is_for(builds, here)
        else "compile it again for this target"
    )
    raise ArtifactError(f"{path} was built for {reasons}; {advice}")


def _misfit(build: Manifest, here: str, flags: frozenset[str] | None) -> str | None:
    """Why a build does not run, or None."""
    target = build["target"]
    wanted = target.get("arch")
    if wanted != here:
        return f"{wanted}, this machine is {here}"
    of_cpu, of_gpu = gpu.split_features(list(target.get("features", ())))
    missing = cpu.missing_features(of_cpu, flags, here)
    name = target.get("name", wanted)
    if not missing and (reason := gpu.misfit(of_gpu)) is not None:
        return f"{name!r} and needs {reason}"
    return (
        f"{name!r} and needs CPU features that this machine lacks: {', '.join(missing)}" if missing else None
    )


def _is_for(builds: Sequence[Manifest], here: str) -> bool:
    return any(build["target"].get("arch") == here for build in builds)
