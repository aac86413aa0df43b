"""Models on streams of the caller: order, arrays that stay on the GPU, and what is refused."""

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt import api
from graphopt.backends.targets import Target
from graphopt_runtime import CompiledModel, GpuArray, GraphoptError, InputError
from graphopt_runtime.device_arrays import LEGACY
from graphopt_runtime.driver import Event
from tests.backends.cuda import emulation
from tests.backends.cuda.foreign import ByDlpack, ByInterface, Stream

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def paths(gpu: Target, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("streams")
    names = ("digits_cnn", "digits_mlp")
    return [
        api.build(MODELS / f"{name}.onnx", folder / f"{name}.gopt", target=gpu.name, check=False).path
        for name in names
    ]


@pytest.fixture
def model(paths: list[Path]) -> Iterator[CompiledModel]:
    with graphopt.load(paths[0]) as model:
        yield model


@pytest.fixture
def emulated() -> ctypes.CDLL:
    """The emulated driver, where that is what runs."""
    driver = ctypes.CDLL("libcuda.so.1")
    if not hasattr(driver, "emulated_enable"):
        pytest.skip("a real GPU")
    return emulation.driver()


def feed(model: CompiledModel, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(model.variants[0].inputs[0].shape, np.float32)


def test_results_stay_on_the_gpu(model: CompiledModel) -> None:
    x = feed(model)
    (expected,) = model(x)
    for stream in (0, Stream()):
        (y,) = model(ByDlpack(x), stream=stream)
        assert isinstance(y, GpuArray)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(y.numpy(), expected)
        named = model({model.get_inputs()[0].name: x}, stream=stream)
        np.testing.assert_array_equal(next(iter(named.values())).numpy(), expected)


def test_calls_wait_for_what_the_stream_holds(model: CompiledModel) -> None:
    x, stream = feed(model), Stream()
    (expected,) = model(x)
    given = GpuArray(x.shape, x.dtype)
    stream.fill(given, x)
    (y,) = model(given, stream=stream)
    np.testing.assert_array_equal(y.numpy(), expected)


def test_what_is_asked_of_another_stream_waits_for_results(model: CompiledModel) -> None:
    x, first, second = feed(model), Stream(), Stream()
    (expected,) = model(x)
    (y,) = model(ByDlpack(x), stream=first)
    taken = y.__dlpack__(stream=second.__cuda_stream__()[1])
    copy = GpuArray(y.shape, y.dtype)
    source = ctypes.c_uint64(y.start)
    driver = ctypes.CDLL("libcuda.so.1")
    assert (
        driver.cuMemcpyAsync(ctypes.c_uint64(copy.start), source, ctypes.c_size_t(y.nbytes), second.handle)
        == 0
    )
    assert driver.cuStreamSynchronize(second.handle) == 0
    np.testing.assert_array_equal(copy.numpy(), expected)
    del taken


def test_producers_are_told_the_stream(model: CompiledModel) -> None:
    x, stream = ByDlpack(feed(model)), Stream()
    model(x)
    model(x, stream=0)
    model(x, stream=stream)
    assert x.streams == [LEGACY, LEGACY, stream.handle.value]


def test_lent_arrays_take_results_on_a_stream(model: CompiledModel) -> None:
    x, stream = feed(model), Stream()
    (expected,) = model(x)
    own = GpuArray(expected.shape, expected.dtype)
    for lent in (ByDlpack(np.zeros_like(expected)), ByInterface(np.zeros_like(expected)), own):
        (y,) = model(ByDlpack(x), out=[lent], stream=stream)
        assert y is lent
        ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(stream.handle)
        np.testing.assert_array_equal(lent.numpy(), expected)
    host = np.zeros_like(expected)
    model(ByDlpack(x), out=[host], stream=stream)
    np.testing.assert_array_equal(host, expected)


def test_bound_calls_run_where_the_arrays_lie(model: CompiledModel) -> None:
    x, other, stream = feed(model), feed(model, 1), Stream()
    given = GpuArray(x.shape, x.dtype)
    lent = ByDlpack(np.zeros_like(model(x)[0]))
    waiting, onward, own = (
        model.bind(given, out=[lent]),
        model.bind(given, out=[lent], stream=stream),
        model.bind(given, stream=stream),
    )
    for values in (x, other):
        stream.fill(given, values)
        (expected,) = model(values)
        own()
        np.testing.assert_array_equal(own.results[0].numpy(), expected)
        waiting()
        np.testing.assert_array_equal(lent.numpy(), expected)
        stream.fill(given, values)
        onward()
        ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(stream.handle)
        np.testing.assert_array_equal(lent.numpy(), expected)


def test_bound_calls_wait_for_arrays_of_ours_each_time(model: CompiledModel) -> None:
    x, first, second = feed(model), Stream(), Stream()
    given = GpuArray(x.shape, x.dtype)
    bound = model.bind(given, stream=second)
    for values in (x, feed(model, 1)):
        (expected,) = model(values)
        first.fill(given, values)
        given.complete_at(Event(first.__cuda_stream__()[1]))
        bound()
        np.testing.assert_array_equal(bound.results[0].numpy(), expected)


def test_several_models_streams_and_threads(paths: list[Path]) -> None:
    models = [graphopt.load(path) for path in paths]
    feeds = [[feed(model, seed) for seed in range(6)] for model in models]
    expected = [[model(x)[0] for x in each] for model, each in zip(models, feeds, strict=True)]

    def work(seed: int) -> list[tuple[int, int, GpuArray]]:
        stream = Stream()
        order = [(m, (seed + i) % 6) for i in range(6) for m in range(len(models))]
        results = [(m, i, models[m](ByDlpack(feeds[m][i]), stream=stream)[0]) for m, i in order]
        for m, i, y in results:
            np.testing.assert_array_equal(y.numpy(), expected[m][i])
        return results

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    for model in models:
        model.close()


def test_one_thread_may_use_several_streams(model: CompiledModel) -> None:
    feeds = [feed(model, seed) for seed in range(4)]
    expected = [model(x)[0] for x in feeds]
    streams = [Stream() for _ in feeds]
    arrays = [ByDlpack(x) for x in feeds]
    for _ in range(3):
        results = [model(x, stream=stream)[0] for x, stream in zip(arrays, streams, strict=True)]
        for y, want in zip(reversed(results), reversed(expected), strict=True):
            np.testing.assert_array_equal(y.numpy(), want)


def test_addresses_are_captured_when_they_come_again(model: CompiledModel, emulated: ctypes.CDLL) -> None:
    x, y = ByDlpack(feed(model)), GpuArray(model.variants[0].outputs[0].shape, np.dtype(np.float32))
    counts = []
    for _ in range(3):
        before = emulated.emulated_graphs_launched()
        model(x, out=[y], stream=0)
        counts.append(emulated.emulated_graphs_launched() - before)
    assert counts == [0, 1, 1]


def test_more_sets_of_addresses_than_are_remembered(model: CompiledModel) -> None:
    feeds = [feed(model, seed) for seed in range(6)]
    expected, arrays = [model(x)[0] for x in feeds], [ByDlpack(x) for x in feeds]
    for _ in range(3):
        for x, want in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(model(x, stream=0)[0].numpy(), want)


def test_a_closed_model_finishes_what_was_asked(paths: list[Path]) -> None:
    model = graphopt.load(paths[0])
    x = feed(model)
    (expected,) = model(x)
    given = ByDlpack(x)
    (y,) = model(given, stream=Stream())
    model.close()
    np.testing.assert_array_equal(y.numpy(), expected)


def test_nothing_is_left_of_arrays_and_models(paths: list[Path], emulated: ctypes.CDLL) -> None:
    before = emulated.emulated_allocations()
    with graphopt.load(paths[0]) as model:
        for stream in (0, Stream(), Stream()):
            y = model(ByDlpack(feed(model)), stream=stream)[0]
            taken = y.__dlpack__(), y.__dlpack__(stream=-1)
        del y, taken
    del model
    assert emulated.emulated_allocations() == before


def test_arrays_that_start_anywhere(model: CompiledModel) -> None:
    x = feed(model)
    (expected,) = model(x)
    padded = ByDlpack(np.concatenate([np.zeros(1, np.float32), x.ravel()]))
    shape = (ctypes.c_int64 * x.ndim)(*x.shape)
    padded.changes = {"offset": 4, "rank": x.ndim, "shape": shape, "strides": None}
    np.testing.assert_array_equal(model(padded, stream=0)[0].numpy(), expected)


def test_memory_of_another_gpu_is_copied(model: CompiledModel, emulated: ctypes.CDLL) -> None:
    class Elsewhere:
        def __init__(self, values: np.ndarray) -> None:
            place = ctypes.c_uint64()
            emulated.emulated_allocate_on_other_gpu(ctypes.byref(place), ctypes.c_size_t(values.nbytes))
            ctypes.memmove(place.value, values.ctypes.data, values.nbytes)
            facts = {"shape": values.shape, "typestr": "<f4", "version": 2}
            self.__cuda_array_interface__ = {**facts, "data": (place.value, False)}

    x = feed(model)
    np.testing.assert_array_equal(model(Elsewhere(x), stream=0)[0].numpy(), model(x)[0])


def test_streams_that_are_captured_are_refused(model: CompiledModel, emulated: ctypes.CDLL) -> None:
    stream, x = Stream(), ByDlpack(feed(model))
    emulated.cuStreamBeginCapture_v2(stream.handle, 0)
    with pytest.raises(GraphoptError, match="the stream is being captured"):
        model(x, stream=stream)


def test_streams_of_another_gpu_are_refused(model: CompiledModel, emulated: ctypes.CDLL) -> None:
    stream, x = Stream(), ByDlpack(feed(model))
    emulated.emulated_move_to_other_gpu(stream.handle)
    with pytest.raises(GraphoptError, match="the stream belongs to another GPU"):
        model(x, stream=stream)


def test_lent_arrays_that_may_not_be_written(model: CompiledModel) -> None:
    class Fixed(ByInterface):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            facts = super().__cuda_array_interface__
            return {**facts, "data": (facts["data"][0], True)}

    lent = Fixed(np.zeros(model.variants[0].outputs[0].shape, np.float32))
    with pytest.raises(InputError, match="must be writeable"):
        model(feed(model), out=[lent])


@pytest.mark.parametrize("stream", ["default", -2, True, 1.0, object()])
def test_what_is_no_stream_is_refused(model: CompiledModel, stream: object) -> None:
    with pytest.raises(InputError, match="not a stream; give an object with __cuda_stream__"):
        model(feed(model), stream=stream)


def test_models_on_cpus_have_no_streams() -> None:
    with (
        graphopt.compile(MODELS / "digits_mlp.onnx") as model,
        pytest.raises(InputError, match="runs on the CPU"),
    ):
        model(feed(model), stream=0)


def test_artifacts_from_before_streams_are_refused(model: CompiledModel) -> None:
    model._open_handle().library.run_on = None
    with pytest.raises(InputError, match="compile it again"):
        model(feed(model), stream=0)


def test_memory_that_the_gpu_lacks_for_results(model: CompiledModel, emulated: ctypes.CDLL) -> None:
    before = emulated.emulated_enable(ctypes.c_size_t(1))
    try:
        with pytest.raises(GraphoptError, match="cuMemAlloc: out of memory"):
            model(feed(model), stream=0)
    finally:
        emulated.emulated_enable(ctypes.c_size_t(before))
