"""Which of an artifact's builds this machine runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from graphopt_runtime import cpu, gpu
from graphopt_runtime.artifact import Manifest
from graphopt_runtime.errors import ArtifactError

OTHER, OLDER = "compile it again for this target", "compile it again with an older target"
"""What to do where the architecture is another one, and where the CPU lacks something."""


class Misfit(NamedTuple):
    """Why a build does not run here, and what to do."""

    reason: str
    advice: str


def suitable_build(builds: Sequence[Manifest], path: Path) -> Manifest:
    """The last build that runs here: later ones ask more of the CPU. Raises ArtifactError where none does."""
    here, flags = cpu.architecture(), cpu.cpu_flags()
    for build in reversed(builds):
        if _misfit(build, here, flags) is None:
            return build
    misfits = [misfit for build in builds if (misfit := _misfit(build, here, flags)) is not None]
    closest = [misfit for misfit in misfits if misfit.advice != OTHER] or misfits
    reasons = "; ".join(misfit.reason for misfit in misfits)
    raise ArtifactError(f"{path} was built for {reasons}; {closest[0].advice}")


def _misfit(build: Manifest, here: str, flags: frozenset[str] | None) -> Misfit | None:
    """None where it runs."""
    target = build["target"]
    wanted = target.get("arch")
    if wanted != here:
        return Misfit(f"{wanted}, this machine is {here}", OTHER)
    of_cpu, of_gpu = gpu.split_features(list(target.get("features", ())))
    name = target.get("name", wanted)
    if missing := cpu.missing_features(of_cpu, flags, here):
        lacking = ", ".join(missing)
        return Misfit(f"{name!r} and needs CPU features that this machine lacks: {lacking}", OLDER)
    if (reason := gpu.misfit(of_gpu)) is not None:
        return Misfit(f"{name!r} and needs {reason}", gpu.advice())
    return None
