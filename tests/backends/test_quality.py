"""The loops of template kernels reach the peak of ARM cores, by LLVM's models of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from graphopt.backends import quality
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.kernels.conv_shape import ConvShape
from graphopt.backends.kernels.window import Window
from graphopt.backends.quality import Loop, cannot_judge, judge
from graphopt.backends.schedules import conv, gemm
from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.workload import Workload
from graphopt.backends.targets import find_target
from graphopt.backends.tune.building import Candidate, build
from graphopt.errors import TargetError


def convolution(channels: int, filters: int, size: int, kernel: int, stride: int = 1) -> Workload:
    inside, outside, pad = (size, size), (size // stride, size // stride), kernel // 2
    window = Window(inside, outside, (kernel, kernel), (stride, stride), (pad, pad), (1, 1))
    return conv.workload(ConvShape(1, 1, channels, filters, window), blocked=True)


TEMPLATES: Mapping[str, Workload] = {
    "gemm": gemm.workload(1, 128, 384, 384, packed=True),
    "gemm in place": gemm.workload(8, 64, 64, 64, packed=False),
    "pointwise": convolution(128, 128, 28, 1),
    "winograd": convolution(64, 64, 28, 3),
    "strided": convolution(64, 128, 28, 3, 2),
}

BARS = {"aarch64:neoverse-n1": 0.95, "aarch64:cortex-a72": 0.90, "aarch64:neoverse-v1": 0.95}


def judged(template: str, name: str, folder: Path) -> Loop:
    """The loop of the best schedule of a template; skips where something is missing."""
    target, workload = find_target(name), TEMPLATES[template]
    if (reason := cannot_judge(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    _, config = FAMILIES[workload.family].candidates(workload, target.core)[0]
    build([Candidate(workload, config)], target, 1 << 16, path := folder / "kernel.so")
    [loop] = [loop for loop in judge(path.read_bytes(), target) if "candidate" in loop.kernel]
    return loop


@pytest.mark.parametrize("name", BARS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_best_schedule_reaches_the_peak_without_spills(template: str, name: str, tmp_path: Path) -> None:
    loop = judged(template, name, tmp_path)
    assert loop.spills == 0
    assert BARS[name] <= loop.of_peak <= 1.01


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "aarch64:a64fx"])
def test_other_machines_are_judged(name: str, tmp_path: Path) -> None:
    """Their models are no gate: that of Zen, for one, has broadcasts take a port of the multiply-adds."""
    loop = judged("gemm", name, tmp_path)
    assert 0.4 < loop.of_peak <= 1.01
    assert loop.macs % find_target(name).lanes == 0


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_program", lambda name: None)
    assert "apt-get install llvm-22" in str(cannot_judge(find_target("aarch64")))
    with pytest.raises(TargetError, match="not installed"):
        judge(b"", find_target("aarch64"))


def test_targets_whose_multiply_adds_are_not_known() -> None:
    assert "x86-64-v2" in str(cannot_judge(find_target("x86-64-v2")))
