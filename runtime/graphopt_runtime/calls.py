"""Calls of a model whose arrays are known: what is handed to the library, and what comes back."""

import ctypes
from collections.abc import Sequence
from typing import Any

from graphopt_runtime.device_arrays import LEGACY, DeviceArray, GpuArray
from graphopt_runtime.driver import Event
from graphopt_runtime.errors import GraphoptError
from graphopt_runtime.library import Handle, Pointers
from graphopt_runtime.tensors import Memory, address


class Call:
    """Everything that calls on the same arrays need, kept alive: a variant of the model, `inputs`, `outputs` at `addresses`, and the
    stream, None for one of the model's own."""

    def __init__(
        self,
        handle: Handle,
        variant: int,
        inputs: Sequence[Memory],
        outputs: Sequence[Memory],
        addresses: Sequence[int],
        stream: int | None,
    ) -> None:
        self.inputs, self.outputs, self.stream = inputs, outputs, stream
        self._handle, self._library = handle, handle.library
        tables = _table([address(array) for array in inputs]), _table(addresses)
        self._arguments = (handle.address, variant, *tables)
        owners = [array.owner for array in inputs if isinstance(array, DeviceArray)]
        self._own = [owner for owner in owners if isinstance(owner, GpuArray)]
        self.results = [array.owner if isinstance(array, DeviceArray) else array for array in outputs]

    def run(self) -> list[Any]:
        """The results. Raises GraphoptError where the library fails."""
        library, stream = self._library, self.stream
        status = library.run(*self._arguments) if stream is None else library.run_on(*self._arguments, stream)
        if status != 0:
            self._raise(status)
        if stream is not None:
            _complete(self.results, stream)
        return self.results

    def hold(self) -> None:
        """What is run from now on waits for the values of our own arrays, which may be new ones."""
        for array in self._own:
            array.hold(LEGACY if self.stream is None else self.stream)

    def time(self, repeats: int) -> float:
        """The seconds of so many runs together."""
        seconds: float = self._library.time(*self._arguments, repeats)
        if seconds < 0:
            self._raise(-int(seconds))
        return seconds

    def _raise(self, status: int) -> None:
        sentence: bytes = self._library.error_string(status)
        raise GraphoptError(f"the model failed: {sentence.decode()}")


class BoundCall:
    """A call of a model on arrays that stay the same; `CompiledModel.bind` makes them. `results` are a tuple, or by name a dict."""

    def __init__(self, call: Call, names: Sequence[str] | None) -> None:
        self._call = call
        self.results: tuple[Any, ...] | dict[str, Any] = (
            tuple(call.results) if names is None else dict(zip(names, call.results, strict=True))
        )

    def __call__(self) -> None:
        """Runs the model. Raises GraphoptError where that fails."""
        self._call.hold()
        self._call.run()


def _table(addresses: Sequence[int]) -> Pointers:
    return (ctypes.c_void_p * len(addresses))(*addresses)


def _complete(results: Sequence[Any], stream: int) -> None:
    """Tells our own arrays when their values are there."""
    if own := [array for array in results if isinstance(array, GpuArray)]:
        event = Event(stream)
        for array in own:
            array.complete_at(event)
