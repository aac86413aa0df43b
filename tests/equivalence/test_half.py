"""Real classifiers in bfloat16 give the answers of ONNX Runtime's float32; in float16, under an emulator, results close to its.

Run with ``GRAPHOPT_ZOO=<folder> pytest -m zoo``.
"""

from pathlib import Path

import numpy as np
import pytest

from graphopt import api
from graphopt.accuracy.verify import reference
from graphopt.backends.codegen.toolchain import missing_compiler
from graphopt.backends.execution import cannot_run
from graphopt.backends.targets import find_target, runs_here
from graphopt.compiling.building import read
from graphopt.feeds.data import load_dataset
from graphopt.model import bind_first_dims

pytestmark = pytest.mark.zoo

TARGET, SAMPLES = "x86-64-v4-bf16", 100
CLASSIFIERS = {
    "cifar10_resnet20": ("cifar10_test_jpeg_5k.npz", "cifar"),
    "squeezenet1.1_ncnnfp16": ("imagenet_sample", "imagenet"),
    "shufflenet-v2_fp32_from_int8": ("imagenet_sample", "imagenet"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_top1_agrees(name: str, zoo: Path, tmp_path: Path) -> None:
    if reason := runs_here(find_target(TARGET)):
        pytest.skip(reason)
    file, preprocess = CLASSIFIERS[name]
    model = read(zoo / "models" / f"{name}.onnx")
    bind_first_dims(model)
    data = load_dataset(zoo / "data" / file, list(model.graph.inputs), preprocess)
    run, same = reference(model), []
    with api.load(api.build(model, tmp_path / "m.gopt", TARGET, precision="bf16").path) as compiled:
        for feeds in data.batches(1, SAMPLES):
            expected = next(iter(run(feeds).values()))
            same.append(int(np.argmax(compiled.run(None, dict(feeds))[0])) == int(np.argmax(expected)))
    assert np.mean(same) >= 0.97


@pytest.mark.parametrize("target", ["aarch64:neoverse-n1", "aarch64:neoverse-n2"])
@pytest.mark.parametrize(
    ("name", "allowed"), [("mnist", 4e-3), ("mlperftiny_kws_dscnn_fp32", 8e-3), ("cifar10_resnet20", 4e-3)]
)
def test_float16(name: str, allowed: float, target: str, zoo: Path, tmp_path: Path) -> None:
    found = find_target(target)
    if (reason := cannot_run(found) or missing_compiler(found.compiler)) is not None:
        pytest.skip(reason)
    done = api.build(zoo / "models" / f"{name}.onnx", tmp_path / "m.gopt", target, precision="fp16")
    assert done.verdict.where == "under qemu-aarch64"
    assert 1e-5 < done.verdict.max_rel_err < allowed
