"""Of several builds the last one that the CPU can run is loaded."""

import re
from pathlib import Path
from typing import Any

import pytest

from graphopt_runtime import cpu, gpu
from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.selection import suitable_build

PATH = Path("m.gopt")


def build(name: str, *features: str, arch: str = "") -> dict[str, Any]:
    return {"target": {"name": name, "arch": arch or cpu.architecture(), "features": list(features)}}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"sse2", "avx2"}))


def test_the_last_that_runs_is_chosen() -> None:
    builds = [build("a"), build("b", "avx2"), build("c", "avx2", "avx512f"), build("d", arch="s390x")]
    assert suitable_build(builds, PATH) is builds[1]
    assert suitable_build(builds[:1], PATH) is builds[0]


def test_without_any_every_reason_is_given() -> None:
    builds = [build("c", "avx512f"), build("d", arch="s390x")]
    message = (
        "m.gopt was built for 'c' and needs CPU features that this machine lacks: avx512f; "
        f"s390x, this machine is {cpu.architecture()}; compile it again with an older target"
    )
    with pytest.raises(ArtifactError, match=re.escape(message)):
        suitable_build(builds, PATH)


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            {"sm_90"},
            "the one here is sm_90; compile it again with --target cuda on this machine, or for its architecture",
        ),
        (set(), "there is no NVIDIA GPU here; run it where there is one, or compile it again for a CPU"),
    ],
)
def test_code_for_other_gpus(monkeypatch: pytest.MonkeyPatch, here: set[str], message: str) -> None:
    monkeypatch.setattr(gpu, "architectures", lambda: frozenset(here))
    message = f"m.gopt was built for 'a' and needs a GPU of sm_80; {message}"
    with pytest.raises(ArtifactError, match=re.escape(message) + "$"):
        suitable_build([build("a", "avx2", "sm_80")], PATH)
