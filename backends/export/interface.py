"""What the templates need to know of a model: names that C allows, types, parameters, sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.backends.codegen.llvm import SYMBOL

C_TYPES: Mapping[str, str] = {
    "float32": "float",
    "float64": "double",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""numpy dtype -> the C type of an element; half precision as its bits."""

_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const const_cast constexpr
    continue co_await co_return co_yield decltype default delete do double dynamic_cast else enum explicit export extern false
    float for friend goto if inline int int8_t int16_t int32_t int64_t long mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private protected public register reinterpret_cast requires restrict return short signed size_t sizeof
    static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename uint8_t
    uint16_t uint32_t uint64_t uintptr_t union unsigned using virtual void volatile wchar_t while xor xor_eq
    bits error graphopt handle_ inputs main model outputs require run span std weights workspace
"""

RESERVED = frozenset(_WORDS.split())
"""Words of C and C++, and names that the templates and the runtime use."""


@dataclass(frozen=True)
class TensorFacts:
    """An input or output: `identifier` names it in C, `size` counts elements."""

    identifier: str
    name: str
    dtype: str
    dims: Sequence[int]

    @property
    def ctype(self) -> str:
        return C_TYPES[self.dtype]

    @property
    def quoted(self) -> str:
        """The name as a C string."""
        return c_string(self.name)

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def comment(self) -> str:
        """What it is, for a comment in C."""
        name = re.sub(r"[^\x20-\x7e]", "?", self.name).replace("*/", "* /")
        return f"{name}: {self.dtype}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class VariantFacts:
    """One set of input shapes; `suffix` tells its functions from those of other variants."""

    number: int
    title: str
    inputs: Sequence[TensorFacts]
    outputs: Sequence[TensorFacts]
    workspace_bytes: int
    embedded: bool
    model: str

    @property
    def suffix(self) -> str:
        return f"_{self.number}" if self.number else ""

    @property
    def symbol(self) -> str:
        """The driver that graphopt generated."""
        return SYMBOL.format(self.number)

    @property
    def parameters(self) -> str:
        """Of the function that runs the variant without a handle."""
        return ", ".join(
            [
                *([] if self.embedded else ["const void *weights"]),
                *(f"const {tensor.ctype} *{tensor.identifier}" for tensor in self.inputs),
                *(f"{tensor.ctype} *{tensor.identifier}" for tensor in self.outputs),
                "void *workspace",
            ]
        )

    @property
    def driver_parameters(self) -> str:
        return ", ".join(["const void *"] * (1 + len(self.inputs)) + ["void *"] * (len(self.outputs) + 1))

    @property
    def arguments(self) -> str:
        weights = f"{self.model}_weights" if self.embedded else "weights"
        return ", ".join([weights, *self._identifiers, "workspace"])

    @property
    def addresses(self) -> str:
        """All pointers of a call in one number."""
        pointers = [*([] if self.embedded else ["weights"]), *self._identifiers, "workspace"]
        return " | ".join(f"(uintptr_t){pointer}" for pointer in pointers)

    @property
    def spans(self) -> str:
        """Parameters of the C++ function."""
        given = [f"span<const {tensor.ctype}> {tensor.identifier}" for tensor in self.inputs]
        return ", ".join([*given, *(f"span<{tensor.ctype}> {tensor.identifier}" for tensor in self.outputs)])

    @property
    def input_data(self) -> str:
        return ", ".join(f"{tensor.identifier}.data()" for tensor in self.inputs) or "nullptr"

    @property
    def output_data(self) -> str:
        return ", ".join(f"{tensor.identifier}.data()" for tensor in self.outputs)

    @property
    def _identifiers(self) -> list[str]:
        return [tensor.identifier for tensor in (*self.inputs, *self.outputs)]


def describe(model: str, variants: Sequence[Mapping[str, Any]], embedded: bool) -> list[VariantFacts]:
    """The variants of a manifest."""
    described = []
    for number, variant in enumerate(variants):
        names = identifiers(tensor["name"] for kind in ("inputs", "outputs") for tensor in variant[kind])
        inputs, outputs = (
            [TensorFacts(next(names), t["name"], t["dtype"], t["shape"]) for t in variant[kind]]
            for kind in ("inputs", "outputs")
        )
        shapes = ", ".join(tensor.comment for tensor in inputs)
        title = "the model" if len(variants) == 1 else f"variant {number}, which takes {shapes},"
        described.append(
            VariantFacts(number, title, inputs, outputs, variant["workspace_bytes"], embedded, model)
        )
    return described


def c_string(text: str) -> str:
    """A literal of the text in UTF-8."""
    plain = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'


def identifiers(names: Iterable[str]) -> Iterator[str]:
    """Names that C and C++ allow, in order; each different from the others, as macros in upper case too."""
    taken: set[str] = set()
    for name in names:
        base = identifier(name)
        candidate, count = base, 1
        while candidate.upper() in taken:
            candidate, count = f"{base}_{count}", count + 1
        taken.add(candidate.upper())
        yield candidate


def identifier(name: str) -> str:
    """A name with everything replaced that C does not allow."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "tensor"
    return f"t_{plain}" if plain[0].isdigit() or plain in RESERVED else plain
