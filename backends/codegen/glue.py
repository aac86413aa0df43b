"""The C file that tells the runtime which drivers a library holds and how large their tensors are."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.backends.codegen.llvm import SYMBOL
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Program

_HEADER = """#include <stddef.h>
#include <stdint.h>
#include "graphopt_rt.h"

"""

_VARIANT = """extern int32_t {symbol}({parameters});
static int call_{number}(const void *weights, const void *const *in, void *const *out, void *workspace) {{
    return {symbol}({arguments});
}}
static const size_t input_bytes_{number}[] = {{{input_bytes}}};
static const size_t output_bytes_{number}[] = {{{output_bytes}}};

"""


def glue_source(programs: Sequence[Program], plans: Sequence[MemoryPlan]) -> str:
    """The source text, one entry a variant."""
    parts = [_HEADER]
    rows = []
    for number, (program, plan) in enumerate(zip(programs, plans, strict=True)):
        inputs, outputs = len(program.inputs), len(program.outputs)
        arguments = ["weights", *(f"in[{i}]" for i in range(inputs)), *(f"out[{i}]" for i in range(outputs)), "workspace"]
        types = ["const void *"] * (1 + inputs) + ["void *"] * (outputs + 1)
        parts.append(
            _VARIANT.format(
                symbol=SYMBOL.format(number),
                number=number,
                parameters=", ".join(types),
                arguments=", ".join(arguments),
                input_bytes=_sizes(buffer.nbytes for buffer in program.inputs),
                output_bytes=_sizes(buffer.nbytes for buffer in program.outputs),
            )
        )
        rows.append(
            f"    {{call_{number}, {inputs}, {outputs}, {plan.arena_bytes}, input_bytes_{number}, output_bytes_{number}}},\n"
        )
    parts.append(f"const graphopt_variant graphopt_variants[] = {{\n{''.join(rows)}}};\n")
    parts.append(f"const int graphopt_variant_count = {len(rows)};\n")
    return "".join(parts)


def _sizes(sizes) -> str:  # type: ignore[no-untyped-def]
    return ", ".join(str(size) for size in sizes) or "0"
