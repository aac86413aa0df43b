"""A compiled model that is ready to run: numpy arrays in, numpy arrays out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from graphopt_runtime import cpu, gpu
from graphopt_runtime.artifact import Artifact, open_artifact
from graphopt_runtime.calls import BoundCall, Call
from graphopt_runtime.device_arrays import LEGACY, stream_number
from graphopt_runtime.errors import GraphoptError, InputError
from graphopt_runtime.library import Handle, Library
from graphopt_runtime.selection import suitable_build
from graphopt_runtime.signature import Outputs, Signature
from graphopt_runtime.tensors import (
    Memory,
    NodeArg,
    Variant,
    address,
    allocate_all,
    as_input,
    as_memory,
    parse_variants,
)


def load(
    path: str | Path, threads: int | None = None, verify: bool = True, weights: str | Path | None = None
) -> "CompiledModel":
    """Loads a .gopt file. This runs code from the file: load only artifacts that you trust.

    `threads` defaults to the CPUs that this process may use. `verify=False` skips the hash of the weights. `weights` is their
    file where they were compiled to lie apart, by default `PATH.weights`.
    Raises ArtifactError when a file is damaged, too new, made for another CPU, or not there.
    """
    return CompiledModel(open_artifact(path, verify, suitable_build, weights), threads)


class CompiledModel:
    """A model in memory. Calls from several threads run concurrently; `close()` waits for nothing and frees everything
    once the running calls are done."""

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self.manifest: Mapping[str, Any] = artifact.manifest
        self.name: str = str(artifact.manifest.get("name", artifact.path.stem))
        self.variants: tuple[Variant, ...] = parse_variants(artifact.manifest)
        self._signature = Signature(self.variants)
        self._on_gpu = gpu.is_needed(artifact.manifest)
        self._path = artifact.path
        self._threads = threads if threads is not None else cpu.default_threads()
        self._passive = False
        self._handle: Handle | None = _create(artifact, _check_threads(self._threads))

    def __call__(self, *arrays: Any, out: Outputs | None = None, stream: Any = None, **named: Any) -> Any:
        """Runs the model.

        `model(a, b)` takes the inputs by position and returns a tuple of arrays; `model(x=a, y=b)` and
        `model({"x": a, "y": b})` take them by name and return a dict. `out` lends C-contiguous arrays for the outputs,
        in a sequence or by name.

        Of a model on a GPU both may be arrays there, of torch, cupy or others that know DLPack, which are used where they lie.
        With a `stream`, an integer or an object with `__cuda_stream__`, the call runs there, and returns arrays on the GPU
        (`GpuArray`) before their values are there, unless an array of the host has to be waited for. What is given must then be
        left alone until the stream has come so far. Raises InputError when a feed does not fit.
        """
        feeds = _named_feeds(arrays, named)
        if feeds is None:
            return tuple(self._run(self._signature.positional(arrays), out, stream))
        results = self._run(self._signature.ordered(feeds), out, stream)
        return dict(zip(self._signature.output_names, results, strict=True))

    def bind(self, *arrays: Any, out: Outputs | None = None, stream: Any = None, **named: Any) -> BoundCall:
        """A call that is prepared once, for loops: it takes what a call takes, reads the same arrays each time and writes the same
        results, which it allocates where none are lent.

        Its `results` are as a call returns them. Without a `stream`, values of arrays on a GPU must be there, or come by the default
        stream. It keeps the model open. Raises InputError where a feed does not fit, or is not an array that can be read where it lies.
        """
        feeds = _named_feeds(arrays, named)
        ordered = self._signature.positional(arrays) if feeds is None else self._signature.ordered(feeds)
        call = self._prepare(ordered, out, None if stream is None else self._stream(stream))
        for name, given, taken in zip(self._signature.input_names, ordered, call.inputs, strict=True):
            if isinstance(taken, np.ndarray) and not (
                isinstance(given, np.ndarray) and address(taken) == address(given)
            ):
                raise InputError(
                    f"{name!r} must be a C-contiguous numpy array, so that later calls see what is written to it"
                )
        names = None if feeds is None else self._signature.output_names
        return BoundCall(call, names)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        """Like ONNX Runtime's InferenceSession.run: the named outputs, or all of them for None."""
        wanted = None if output_names is None else self._signature.output_indices(output_names)
        outputs = self._run(self._signature.ordered(feeds), None)
        return outputs if wanted is None else [outputs[index] for index in wanted]

    def time(self, feeds: Mapping[str, Any], repeats: int = 1) -> float:
        """Runs the model `repeats` times without Python in between and returns the seconds of all runs together."""
        if repeats < 1:
            raise InputError(f"repeats is {repeats}, it must be at least 1")
        return self._prepare(self._signature.ordered(feeds), None).time(repeats)

    def layer_times(self, feeds: Mapping[str, Any], repeats: int = 1) -> list[float]:
        """Seconds that each kernel took in `repeats` runs, in the order of the manifest's `kernels`.

        Raises InputError unless the model was compiled with profiling.
        """
        library = self._open_handle().library
        if library.layer_times is None:
            raise InputError(f"{self.name} was compiled without profiling; time the ONNX model instead")
        count = len(self.manifest.get("kernels", ()))
        before = library.layer_times()[:count]
        self.time(feeds, repeats)
        return [after - start for after, start in zip(library.layer_times()[:count], before, strict=True)]

    def get_inputs(self) -> list[NodeArg]:
        """Name, shape and type of each input, as in ONNX Runtime."""
        return self._signature.input_args()

    def get_outputs(self) -> list[NodeArg]:
        """Name, shape and type of each output, as in ONNX Runtime."""
        return self._signature.output_args()

    @property
    def threads(self) -> int:
        """How many threads a call uses, the caller's included."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        handle = self._open_handle()
        handle.library.set_threads(handle.address, _check_threads(count))
        self._threads = count

    @property
    def passive(self) -> bool:
        """True: idle workers sleep at once. False: they spin for up to 0.1 ms first, so that the next kernel starts sooner."""
        return self._passive

    @passive.setter
    def passive(self, passive: bool) -> None:
        handle = self._open_handle()
        handle.library.set_passive(handle.address, int(passive))
        self._passive = bool(passive)

    def close(self) -> None:
        """Frees threads, workspaces, code and weights, after the calls that are still running."""
        self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"{self._threads} threads"
        return f"<CompiledModel {self.name!r}: {self._signature}; {state}>"

    def _run(self, feeds: Sequence[Any], out: Outputs | None, stream: Any = None) -> list[Any]:
        return self._prepare(feeds, out, None if stream is None else self._stream(stream)).run()

    def _stream(self, stream: Any) -> int:
        if not self._on_gpu:
            raise InputError(f"{self.name} runs on the CPU, which has no streams; leave out `stream`")
        if self._open_handle().library.run_on is None:
            raise InputError(f"{self._path} was compiled before models ran on streams; compile it again")
        return stream_number(stream)

    def _prepare(self, feeds: Sequence[Any], out: Outputs | None, stream: int | None = None) -> Call:
        handle = self._open_handle()
        signature, user = self._signature, stream or LEGACY
        as_operand: Callable[..., Memory] = partial(as_memory, stream=user) if self._on_gpu else as_input
        inputs = [as_operand(t.name, feed, t.dtype) for t, feed in zip(signature.inputs, feeds, strict=True)]
        variant = signature.variant(inputs)
        outputs: Sequence[Memory]
        if out is None:
            outputs, addresses = allocate_all(variant.outputs, on_gpu=stream is not None)
        else:
            outputs = signature.lent(variant, out, inputs, user if self._on_gpu else None)
            addresses = [address(array) for array in outputs]
        return Call(handle, variant.index, inputs, outputs, addresses, stream)

    def _open_handle(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise GraphoptError(f"the model {self.name!r} is closed; load {self._path} again")
        return handle


def _named_feeds(arrays: tuple[Any, ...], named: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The feeds given by name, as keywords or in a mapping; None when they are given by position."""
    if arrays and named:
        raise InputError("pass the inputs by position or by name, not both")
    if named:
        return named
    if len(arrays) == 1 and type(arrays[0]) is not np.ndarray and isinstance(arrays[0], Mapping):
        return arrays[0]
    return None


def _create(artifact: Artifact, threads: int) -> Handle:
    library = Library(artifact.library, str(artifact.path))
    weights = artifact.weights
    start = address(np.frombuffer(weights, np.uint8)) if len(weights) else 0
    return Handle(library, start, threads, (artifact, weights))


def _check_threads(count: int) -> int:
    if count < 1:
        raise InputError(f"threads is {count}, it must be at least 1")
    return count
