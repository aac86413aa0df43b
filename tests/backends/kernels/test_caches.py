"""Cores with smaller caches cut their work into smaller blocks, and compute the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphopt import api
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.kernels.conv import ConvKernel
from graphopt.backends.kernels.conv_shape import ConvShape, ConvTile
from graphopt.backends.kernels.core import DEFAULT_CACHE, NEON, Core
from graphopt.backends.kernels.gemm import GemmTile
from graphopt.backends.kernels.window import Window
from graphopt.backends.kernels.winograd import WinogradShape
from graphopt.backends.kernels.winograd_transforms import transforms
from graphopt.backends.targets import TARGETS, find_target
from tests.conftest import make_model

SHAPE = ConvShape(1, 1, 256, 256, Window((56, 56), (56, 56), (3, 3), (1, 1), (1, 1), (1, 1)))


def parts(core: Core) -> int:
    """Into how many parts a direct convolution cuts its image."""
    kernel = ConvKernel(SHAPE, ConvTile(2, 8), core, None, None, None, None)  # type: ignore[arg-type]
    return kernel._image_parts(392)


def test_smaller_caches_get_smaller_blocks() -> None:
    """Of the image in direct convolutions, of the transformed input in Winograd's."""
    cores = [replace(NEON, cache=size << 20) for size in (1, 2, 4)]
    most, middle, fewest = map(parts, cores)
    assert most > middle > fewest
    chunks = [WinogradShape(SHAPE, transforms(4), GemmTile(8, 2), core).groups_in_chunk for core in cores]
    assert chunks == sorted(set(chunks))


def test_the_table() -> None:
    """Small cores have less than large ones; what has no entry is as it was."""
    caches = {name: target.core.cache for name, target in TARGETS.items()}
    small, large = caches["aarch64:cortex-a53"], caches["aarch64:neoverse-n1"]
    assert small < caches["aarch64:cortex-a72"] < caches["aarch64:cortex-a76"] < large
    assert caches["aarch64"] == caches["x86-64-v4"] == DEFAULT_CACHE


def test_blocks_of_a_tiny_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts of an image and several chunks, under an emulator."""
    target = find_target("aarch64:cortex-a53")
    if (reason := cannot_run(target) or missing_compiler(target.compiler)) is not None:
        pytest.skip(reason)
    tiny = replace(target, core=replace(target.core, cache=4 << 10))
    monkeypatch.setitem(TARGETS, target.name, tiny)  # type: ignore[misc]
    random = np.random.default_rng(2)
    text = """g (float[1,24,20,20] x) => (float[1,24,10,10] y) {
        a = Conv<pads = [1,1,1,1]>(x, u) b = Conv<strides = [2,2], pads = [1,1,1,1]>(a, v) y = Conv(b, w) }"""
    shapes = {"u": (24, 24, 3, 3), "v": (24, 24, 3, 3), "w": (24, 24, 1, 1)}
    weights = {n: random.standard_normal(shape).astype(np.float32) / 15 for n, shape in shapes.items()}
    assert api.build(make_model(text, **weights), tmp_path / "m.gopt", target.name).verdict.passed
