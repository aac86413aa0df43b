"""Whole models on a GPU: verified as they are compiled, run by several threads, and refused with a reason."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt import api
from graphopt.artifacts.unpacking import unpack
from graphopt.backends.cuda import nvcc
from graphopt.backends.targets import TARGETS, Target, find_target, find_targets, native
from graphopt.errors import ArtifactError, TargetError
from tests.artifacts.test_unpacking import run_library
from tests.backends.cuda import emulation
from tests.backends.cuda.foreign import ByInterface
from tests.cli.conftest import invoke
from tests.conftest import make_model

MODELS = Path(__file__).parents[3] / "models"
NAMES = sorted(path.name for path in MODELS.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_are_verified(gpu: Target, tmp_path: Path, name: str) -> None:
    done = api.build(MODELS / name, tmp_path / "model.gopt", target=gpu.name)
    assert done.verdict.passed
    assert done.kernels


def test_threads_run_a_model_at_once(gpu: Target, tmp_path: Path) -> None:
    done = api.build(MODELS / "digits_cnn.onnx", tmp_path / "model.gopt", target=gpu.name, check=False)
    images = [np.random.default_rng(i).random((1, 1, 8, 8), np.float32) for i in range(8)]
    with graphopt.load(done.path) as model, ThreadPoolExecutor(4) as pool:
        expected = [model(image)[0] for image in images]
        for image, result in zip(images, pool.map(lambda x: model(x)[0], images), strict=True):
            np.testing.assert_array_equal(result, expected[[i is image for i in images].index(True)])


def test_the_same_model_gives_the_same_bytes(gpu: Target, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "model.gopt" for folder in ("first", "second")]
    for path in paths:
        path.parent.mkdir()
        api.build(MODELS / "digits_mlp.onnx", path, target=gpu.name, check=False)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_without_a_gpu_nothing_is_verified_or_loaded(tmp_path: Path) -> None:
    with emulation.emulated_compiler():
        done = api.build(MODELS / "digits_mlp.onnx", tmp_path / "model.gopt", target="cuda:sm_80")
    assert "GPU of sm_80" in done.verdict.not_verified
    with pytest.raises(ArtifactError, match="needs a GPU of sm_80"):
        graphopt.load(done.path)


def test_an_artifact_of_several_gpus_runs_the_build_of_the_one_here(tmp_path: Path) -> None:
    if reason := emulation.missing():
        pytest.skip(reason)
    path = tmp_path / "model.gopt"
    with emulation.emulated_gpu():
        api.build(MODELS / "digits_mlp.onnx", path, target="cuda:sm_80,cuda:sm_90,x86-64-v3", check=False)
        with graphopt.load(path) as model:
            assert model.manifest["target"]["name"] == "cuda:sm_90"
        api.build(MODELS / "digits_mlp.onnx", path, target="cuda:sm_80", check=False)
        with pytest.raises(ArtifactError, match=r"needs a GPU of sm_80; the one here is sm_90"):
            graphopt.load(path)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_kernels_of_the_generation_before_are_verified(name: str, precision: str, tmp_path: Path) -> None:
    """Those of sm_80 know neither groups of warps nor clusters."""
    if reason := emulation.missing():
        pytest.skip(reason)
    path = tmp_path / "model.gopt"
    with emulation.emulated_gpu(generation=emulation.AMPERE):
        done = api.build(MODELS / f"{name}.onnx", path, target="cuda:sm_80", precision=precision)
    assert done.verdict.passed


@pytest.mark.parametrize(
    ("code", "told"),
    [(b"none", r"\(the driver knows CUDA 13\.0; code of"), (b"", r"\(the code is for another GPU\)")],
)
def test_code_that_a_driver_does_not_load_is_told(
    code: bytes, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := emulation.missing():
        pytest.skip(reason)
    image = len(code).to_bytes(emulation.WIDTH, "little") + code
    monkeypatch.setattr(emulation, "_image", lambda source: image)
    with emulation.emulated_gpu():
        done = api.build(MODELS / "digits_mlp.onnx", tmp_path / "model.gopt", target="cuda", check=False)
        with pytest.raises(ArtifactError, match=rf"cuModuleLoadData: .* {told}"):
            graphopt.load(done.path)


def test_kernels_of_a_single_thread_are_told(tmp_path: Path) -> None:
    text = """agraph (float[64,100] x, int64[64,10] i) => (float[64,100] y) {
        u = GatherElements<axis=1>(x, i) y = ScatterElements<axis=1>(x, i, u) }"""
    with emulation.emulated_compiler():
        done = api.build(make_model(text), tmp_path / "m.gopt", target="cuda:sm_90", check=False)
        few = api.build(
            make_model(text.replace("64,100", "2,9").replace("64,10", "2,3")),
            tmp_path / "few.gopt",
            target="cuda:sm_90",
            check=False,
        )
    assert [layer["threads"] for layer in done.layers] == [6400, 1]
    assert "6,400" in invoke("inspect", done.path, "--kernels").stdout
    [notice] = done.notices
    assert notice.startswith("cuda:sm_90: run by a single thread of the GPU, and slow: ")
    assert few.notices == []


def test_programs_in_c_run_what_is_unpacked(gpu: Target, tmp_path: Path) -> None:
    path, x = tmp_path / "m.gopt", np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    api.build(MODELS / "digits_cnn.onnx", path, target=gpu.name, check=False, separate_weights=True)
    library, weights, _ = unpack(path, tmp_path / "c")
    with graphopt.load(path) as model:
        np.testing.assert_array_equal(run_library(library, weights, x, 10), model(x)[0][0])


def test_memory_that_a_gpu_lacks_is_told(tmp_path: Path) -> None:
    if reason := emulation.missing():
        pytest.skip(reason)
    with emulation.emulated_gpu(memory=4096):
        done = api.build(MODELS / "digits_mlp.onnx", tmp_path / "model.gopt", target="cuda", check=False)
        with pytest.raises(ArtifactError, match="cuMemAlloc: out of memory"):
            graphopt.load(done.path)


def test_without_the_compiler_a_hint_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: None)
    with pytest.raises(TargetError, match=r"nvcc is not installed.*CUDA_HOME"):
        nvcc.compile_cubins([""], "sm_80")


def test_profiles_are_refused() -> None:
    with pytest.raises(TargetError, match="cannot be profiled"):
        api.compile(MODELS / "digits_mlp.onnx", target="cuda:sm_80", profile=True)


def test_exports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="GPU"):
        api.export(MODELS / "digits_mlp.onnx", tmp_path / "model", target="cuda:sm_80", kind="static")


def test_targets() -> None:
    assert not native().device
    both = find_targets("cuda:sm_90,cuda:sm_80")
    assert [target.device for target in both] == ["sm_80", "sm_90"]
    assert TARGETS["cuda:sm_86"].demands == ("sm_86",)


def test_the_gpu_of_a_machine_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt_runtime.gpu.architectures", frozenset)
    with pytest.raises(TargetError, match=r"name the one to compile for: cuda:sm_80"):
        find_target("cuda")


def test_arrays_on_the_gpu_are_used_where_they_lie(gpu: Target, tmp_path: Path) -> None:
    done = api.build(MODELS / "digits_mlp.onnx", tmp_path / "model.gopt", target=gpu.name, check=False)
    with graphopt.load(done.path) as model:
        feeds = [np.random.default_rng(0).random(t.shape, np.float32) for t in model.variants[0].inputs]
        expected = model(*feeds)
        lent = [ByInterface(np.zeros_like(array)) for array in expected]
        results = model(*(ByInterface(array) for array in feeds), out=lent)
        assert all(result is array for result, array in zip(results, lent, strict=True))
        for array, want in zip(lent, expected, strict=True):
            np.testing.assert_array_equal(array.numpy(), want)
