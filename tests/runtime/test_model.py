"""Loading and calling a compiled model."""

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from graphopt_runtime import ArtifactError, CompiledModel, GraphoptError, InputError, cpu, load

WEIGHTS = np.arange(128, dtype=np.float32)


def feed(size: int = 64, start: float = 0.5) -> np.ndarray:
    return np.arange(size, dtype=np.float32) + np.float32(start)


def check(outputs: Sequence[np.ndarray], x: np.ndarray) -> None:
    y, z = outputs
    np.testing.assert_array_equal(y, x + WEIGHTS[: x.size])
    np.testing.assert_array_equal(z, 2 * (x + WEIGHTS[: x.size]))


def test_inputs_by_position_give_a_tuple(model: CompiledModel) -> None:
    result = model(feed())
    assert isinstance(result, tuple)
    check(result, feed())


def test_inputs_by_name_give_a_dict(model: CompiledModel) -> None:
    for result in (model(x=feed()), model({"x": feed()})):
        assert list(result) == ["y", "z"]
        check((result["y"], result["z"]), feed())


def test_run_selects_and_orders_the_outputs(model: CompiledModel) -> None:
    y, z = model.run(None, {"x": feed()})
    check((y, z), feed())
    swapped = model.run(["z", "y"], {"x": feed()})
    check(swapped[::-1], feed())
    with pytest.raises(InputError, match=r"no output 'q'; its outputs are 'y', 'z'"):
        model.run(["q"], {"x": feed()})


def test_the_variant_follows_the_input_shape(model: CompiledModel) -> None:
    for size in (64, 128, 64):
        check(model(feed(size)), feed(size))


def test_strided_and_misaligned_inputs_are_copied(model: CompiledModel) -> None:
    check(model(feed(128)[::2]), feed(128)[::2])
    check(model(feed()[::-1]), feed()[::-1])
    raw = np.zeros(256 + 64, np.uint8)
    for offset in (1, 4, 16):
        x = raw[offset : offset + 256].view(np.float32)
        x[:] = feed()
        check(model(x), feed())


def test_outputs_are_aligned_and_fresh(model: CompiledModel) -> None:
    first, second = model(feed()), model(feed(start=1))
    assert all(array.ctypes.data % 64 == 0 for array in first + second)
    check(first, feed())


def test_lent_arrays_take_the_outputs(model: CompiledModel) -> None:
    raw = np.zeros(257, np.float32)
    y, z = raw[1:65], np.empty(64, np.float32)
    result = model(feed(), out=[y, z])
    assert result[0] is y
    check((y, z), feed())
    assert model(x=feed(start=2), out={"z": z, "y": y})["z"] is z
    check((y, z), feed(start=2))


def test_a_bound_call_reads_and_writes_the_same_arrays(model: CompiledModel) -> None:
    x = feed()
    bound, named = (
        model.bind(x),
        model.bind(x=x, out={"y": np.empty(64, np.float32), "z": np.empty(64, np.float32)}),
    )
    y, z = bound.results
    for start in (0.5, 3):
        x[:] = feed(start=start)
        bound()
        named()
        check((y, z), x)
        check((named.results["y"], named.results["z"]), x)
    assert bound.results[0] is y


def test_bound_calls_refuse_what_would_be_copied(model: CompiledModel) -> None:
    with pytest.raises(InputError, match="C-contiguous numpy array"):
        model.bind(feed(128)[::2])
    with pytest.raises(InputError, match="not compiled for the shapes"):
        model.bind(feed(3))


def test_a_bound_call_keeps_the_model_open(model: CompiledModel) -> None:
    bound = model.bind(feed())
    model.close()
    bound()
    check(bound.results, feed())
    with pytest.raises(GraphoptError, match="closed"):
        model.bind(feed())


def test_nan_and_infinity_pass_through(model: CompiledModel) -> None:
    x = feed()
    x[[3, 5, 7]] = np.nan, np.inf, -np.inf
    check(model(x), x)


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_from_many_threads_do_not_disturb_one_another(add_path: Path, threads: int) -> None:
    errors: list[Exception] = []

    def hammer(seed: int) -> None:
        try:
            for i in range(200):
                size = 64 if (seed + i) % 2 else 128
                x = feed(size, seed + i)
                check(model(x), x)
        except (AssertionError, GraphoptError) as error:
            errors.append(error)

    with load(add_path, threads=threads) as model:
        workers = [threading.Thread(target=hammer, args=(i,)) for i in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert errors == []


def test_models_work_in_a_forked_child(model: CompiledModel) -> None:
    model(feed())
    child = os.fork()
    if child == 0:
        os._exit(0 if (model(feed())[0] == feed() + WEIGHTS[:64]).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_and_passive_mode_can_be_set(model: CompiledModel) -> None:
    for threads, passive in [(1, True), (3, True), (2, False)]:
        model.threads, model.passive = threads, passive
        assert (model.threads, model.passive) == (threads, passive)
        check(model(feed()), feed())
    with pytest.raises(InputError, match="threads is 0"):
        model.threads = 0


def test_threads_default_to_what_the_machine_grants(add_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "default_threads", lambda: 3)
    with load(add_path) as model:
        assert model.threads == 3
    with pytest.raises(InputError, match="threads is -1"):
        load(add_path, threads=-1)


def test_time_measures_all_runs_together(model: CompiledModel) -> None:
    assert 0 < model.time({"x": feed()}, 10) < 5
    with pytest.raises(InputError, match="repeats is 0"):
        model.time({"x": feed()}, 0)


def test_failing_kernels_raise(write_add: Callable[..., Path], probe_library: bytes) -> None:
    variants = [
        {
            "inputs": [{"name": "x", "shape": [1] * index, "dtype": "int32"}],
            "outputs": [{"name": "y", "shape": [64], "dtype": "int32"}],
            "workspace_bytes": 0,
        }
        for index in range(4)
    ]
    with load(write_add(probe_library, variants=variants), threads=2) as model:
        argument = np.zeros([1] * 3, np.int32)
        with pytest.raises(GraphoptError, match="a kernel reported a failure"):
            model(argument)
        with pytest.raises(GraphoptError, match="a kernel reported a failure"):
            model.time({"x": argument})
        assert model(argument + 99)[0].shape == (64,)


def test_a_closed_model_says_so(model: CompiledModel) -> None:
    model.close()
    model.close()
    assert "closed" in repr(model)
    with pytest.raises(GraphoptError, match=r"'add' is closed; load .*add\.gopt again"):
        model(feed())
    with pytest.raises(GraphoptError, match="closed"):
        model.threads = 2


def test_closing_waits_for_running_calls_only(add_path: Path) -> None:
    model = load(add_path, threads=2)
    seen: list[str] = []

    def hammer() -> None:
        try:
            while True:
                check(model(feed()), feed())
        except GraphoptError as error:
            seen.append(str(error))

    workers = [threading.Thread(target=hammer) for _ in range(4)]
    for worker in workers:
        worker.start()
    model.close()
    for worker in workers:
        worker.join()
    assert len(seen) == 4


def test_nothing_is_left_of_a_collected_model(add_path: Path) -> None:
    def traces() -> list[str]:
        maps = Path("/proc/self/maps").read_text()
        return [line for line in maps.splitlines() if "memfd:graphopt" in line or "add.gopt" in line]

    gc.collect()
    before = traces(), os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")
    model = load(add_path, threads=2)
    model(feed())
    assert len(traces()) > len(before[0])
    del model
    gc.collect()
    assert (traces(), os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")) == before


def test_weights_are_mapped_from_the_file(model: CompiledModel, add_path: Path) -> None:
    assert any(str(add_path) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_the_runtime_imports_neither_compiler_nor_onnx(add_path: Path) -> None:
    code = (
        "import sys, graphopt_runtime\n"
        f"graphopt_runtime.load({str(add_path)!r})\n"
        "print([m for m in ('tvm', 'onnx', 'onnx_ir', 'graphopt') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_another_architecture_is_refused(write_add: Callable[..., Path]) -> None:
    path = write_add(target={"name": "z", "arch": "s390x", "features": []})
    with pytest.raises(ArtifactError, match="was built for s390x, this machine is"):
        load(path)


def test_missing_cpu_features_are_named(
    write_add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"sse2", "avx2"}))
    path = write_add(
        target={"name": "v4", "arch": cpu.architecture(), "features": ["avx2", "avx512vnni", "amx-tile"]}
    )
    with pytest.raises(ArtifactError, match=r"'v4' and needs CPU features .* lacks: amx-tile, avx512vnni;"):
        load(path)
