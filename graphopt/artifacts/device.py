"""Models that run elsewhere: on a board, or under an emulator, by a program that speaks the protocol of csrc/device.c."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from graphopt.arrays import Array
from graphopt.errors import DeviceError
from graphopt_runtime.artifact import Manifest, open_artifact
from graphopt_runtime.signature import Signature
from graphopt_runtime.tensors import NodeArg, Tensor, Variant, as_input, parse_variants

WORD = b"GRAPHOPT"
_NUMBER = struct.Struct("<Q")


class Session:
    """One conversation with the program; a context manager that ends it."""

    def __init__(
        self, name: str, reader: IO[bytes], writer: IO[bytes], close: Callable[[], None], token: str = ""
    ) -> None:
        """`name` is for messages, `close` is called in the end. Raises DeviceError where the token is refused."""
        self.name = name
        self._reader, self._writer, self._close = reader, writer, close
        try:
            self._send(WORD, _counted(token.encode()))
            self._receive_status()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session."""
        with suppress(OSError):
            self._writer.close()
        self._close()
        self._reader.close()

    def load(self, library: memoryview, weights: memoryview, threads: int) -> None:
        """Sends a model. Raises DeviceError where it cannot be loaded there."""
        self._send(b"M", _counted(library), _counted(weights), _NUMBER.pack(threads))
        self._receive_status()

    def run(self, variant: Variant, inputs: Sequence[Array]) -> list[Array]:
        """Runs one variant and gives its outputs."""
        self._send(b"R", self._call(variant, inputs))
        self._receive_status()
        return [self._receive_array(tensor) for tensor in variant.outputs]

    def time(self, variant: Variant, inputs: Sequence[Array], repeats: int) -> float:
        """The seconds that so many runs take there."""
        self._send(b"T", self._call(variant, inputs), _NUMBER.pack(repeats))
        self._receive_status()
        return 1e-9 * self._receive_number()

    def keep(self, variant: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Has tensors of so many bytes kept for a variant."""
        numbers = (variant, len(inputs), *inputs, len(outputs), *outputs)
        self._send(b"K", *(_NUMBER.pack(number) for number in numbers))
        self._receive_status()

    def time_kept(self, variant: int) -> float:
        """The seconds of one run of a variant on what is kept for it."""
        self._send(b"O", _NUMBER.pack(variant))
        self._receive_status()
        return 1e-9 * self._receive_number()

    def layer_times(self, count: int) -> list[float]:
        """The seconds that so many kernels have taken so far. Raises DeviceError unless the library measures them."""
        self._send(b"L", _NUMBER.pack(count))
        self._receive_status()
        return [float(spent) for spent in np.frombuffer(self._receive(8 * count), "<f8")]

    @staticmethod
    def _call(variant: Variant, inputs: Sequence[Array]) -> bytes:
        arrays = [_counted(np.ascontiguousarray(array).tobytes()) for array in inputs]
        sizes = [_NUMBER.pack(tensor.nbytes) for tensor in variant.outputs]
        numbers = [_NUMBER.pack(count) for count in (variant.index, len(arrays), len(sizes))]
        return b"".join([numbers[0], numbers[1], *arrays, numbers[2], *sizes])

    def _send(self, *parts: bytes) -> None:
        try:
            for part in parts:
                self._writer.write(part)
            self._writer.flush()
        except OSError as error:
            raise self._died() from error

    def _receive(self, count: int) -> bytes:
        try:
            found = self._reader.read(count)
        except OSError as error:
            raise self._died() from error
        if len(found) < count:
            raise self._died()
        return found

    def _receive_number(self) -> int:
        number: int = _NUMBER.unpack(self._receive(_NUMBER.size))[0]
        return number

    def _receive_status(self) -> None:
        if self._receive_number():
            reason = self._receive(self._receive_number()).decode(errors="replace")
            raise DeviceError(f"{self.name}: {reason}")

    def _receive_array(self, tensor: Tensor) -> Array:
        return np.frombuffer(self._receive(tensor.nbytes), tensor.dtype).reshape(tensor.shape).copy()

    def _died(self) -> DeviceError:
        return DeviceError(f"{self.name}: the model's process ended; it crashed, or the connection is lost")


def _counted(content: bytes | memoryview) -> bytes:
    return _NUMBER.pack(len(content)) + bytes(content)


class RemoteModel:
    """A compiled model over a session, with the methods of `graphopt_runtime.CompiledModel` that running it takes."""

    def __init__(
        self,
        path: Path,
        session: Session,
        choose: Callable[[Sequence[Manifest], Path], Manifest],
        threads: int = 1,
    ) -> None:
        """Sends the build of an artifact that `choose` picks. Raises ArtifactError and DeviceError; the session is closed then."""
        try:
            artifact = open_artifact(path, True, choose)
            self.manifest = artifact.manifest
            self.variants = parse_variants(artifact.manifest)
            self.threads = threads
            self._signature, self._session = Signature(self.variants), session
            session.load(artifact.library, artifact.weights, threads)
        except BaseException:
            session.close()
            raise

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Like ONNX Runtime's InferenceSession.run. Raises InputError and DeviceError."""
        wanted = None if output_names is None else self._signature.output_indices(output_names)
        variant, inputs = self._prepare(feeds)
        outputs = self._session.run(variant, inputs)
        return outputs if wanted is None else [outputs[index] for index in wanted]

    def time(self, feeds: Mapping[str, Any], repeats: int = 1) -> float:
        """The seconds of `repeats` runs there. Raises InputError and DeviceError."""
        return self._session.time(*self._prepare(feeds), repeats)

    def layer_times(self, feeds: Mapping[str, Any], repeats: int = 1) -> list[float]:
        """Seconds that each kernel took in `repeats` runs there. Raises InputError, and DeviceError without profiling."""
        count = len(self.manifest.get("kernels", ()))
        before = self._session.layer_times(count)
        self.time(feeds, repeats)
        after = self._session.layer_times(count)
        return [end - start for end, start in zip(after, before, strict=True)]

    def get_inputs(self) -> list[NodeArg]:
        """Name, shape and type of each input, as in ONNX Runtime."""
        return self._signature.input_args()

    def get_outputs(self) -> list[NodeArg]:
        """Name, shape and type of each output, as in ONNX Runtime."""
        return self._signature.output_args()

    def close(self) -> None:
        """Ends the session."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, feeds: Mapping[str, Any]) -> tuple[Variant, list[Array]]:
        given = self._signature.ordered(feeds)
        inputs = [
            as_input(tensor.name, value, tensor.dtype)
            for tensor, value in zip(self._signature.inputs, given, strict=True)
        ]
        return self._signature.variant(inputs), inputs
