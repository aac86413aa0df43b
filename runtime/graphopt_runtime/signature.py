"""What a model takes and gives, over all its variants: orders feeds, finds the variant for their shapes, checks `out`."""

from collections.abc import Mapping, Sequence
from typing import Any

from graphopt_runtime.errors import InputError
from graphopt_runtime.tensors import (
    Memory,
    NodeArg,
    Variant,
    check_output,
    node_args,
    refuse_shared_memory,
)

Outputs = Mapping[str, Any] | Sequence[Any]


class Signature:
    """The inputs and outputs of a model. Names and dtypes are the same in all variants, shapes differ."""

    def __init__(self, variants: tuple[Variant, ...]) -> None:
        self.variants = variants
        self.inputs = variants[0].inputs
        self.input_names = [tensor.name for tensor in self.inputs]
        self.output_names = [tensor.name for tensor in variants[0].outputs]
        self._by_shapes = {variant.input_shapes: variant for variant in variants}

    def __str__(self) -> str:
        return "; ".join(map(str, self.variants))

    def positional(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """The feeds given by position. Raises InputError if there are too few or too many."""
        if len(arrays) != len(self.inputs):
            given, names = len(arrays), quoted(self.input_names)
            raise InputError(f"{given} inputs given, the model takes {len(self.inputs)}: {names}")
        return arrays

    def ordered(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The feeds given by name, in order. Raises InputError if one is missing or unknown."""
        if missing := [name for name in self.input_names if name not in feeds]:
            raise InputError(f"input {quoted(missing)} is missing; the inputs are {quoted(self.input_names)}")
        if len(feeds) > len(self.input_names):
            unknown = [name for name in feeds if name not in self.input_names]
            raise InputError(
                f"the model has no input {quoted(unknown)}; the inputs are {quoted(self.input_names)}"
            )
        return [feeds[name] for name in self.input_names]

    def output_indices(self, names: Sequence[str]) -> list[int]:
        """The positions of named outputs. Raises InputError if one is unknown."""
        if unknown := [name for name in names if name not in self.output_names]:
            raise InputError(
                f"the model has no output {quoted(unknown)}; its outputs are {quoted(self.output_names)}"
            )
        return [self.output_names.index(name) for name in names]

    def variant(self, inputs: Sequence[Memory]) -> Variant:
        """The variant for the shapes of the inputs. Raises InputError, with a list of the variants, if there is none."""
        variant = self._by_shapes.get(tuple([array.shape for array in inputs]))
        if variant is not None:
            return variant
        given = ", ".join(f"{t.name}{list(a.shape)}" for t, a in zip(self.inputs, inputs, strict=True))
        offered = "".join(f"\n  {variant}" for variant in self.variants)
        raise InputError(f"the model is not compiled for the shapes {given}; it is compiled for:{offered}")

    def lent(
        self, variant: Variant, out: Outputs, inputs: Sequence[Memory], stream: int | None = None
    ) -> list[Memory]:
        """The arrays that the caller lends for the outputs, in order, for use on a stream of a GPU. Raises InputError if they
        cannot take them."""
        if isinstance(out, Mapping):
            if set(out) != set(self.output_names):
                raise InputError(
                    f"out names {quoted(sorted(out))}, the outputs are {quoted(self.output_names)}"
                )
            out = [out[name] for name in self.output_names]
        if len(out) != len(variant.outputs):
            raise InputError(f"out has {len(out)} arrays, the model has {len(variant.outputs)} outputs")
        arrays = [
            check_output(tensor, value, stream) for tensor, value in zip(variant.outputs, out, strict=True)
        ]
        refuse_shared_memory(variant.outputs, arrays, inputs)
        return arrays

    def input_args(self) -> list[NodeArg]:
        return node_args([variant.inputs for variant in self.variants])

    def output_args(self) -> list[NodeArg]:
        return node_args([variant.outputs for variant in self.variants])


def quoted(names: Sequence[str]) -> str:
    """Names for a message: 'a', 'b'."""
    return ", ".join(map(repr, names))
