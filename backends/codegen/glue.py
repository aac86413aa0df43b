"""The C file that tells the runtime which drivers a library holds and how large their tensors are."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.backends.codegen.llvm import SYMBOL
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Program

_HEADER = """#define _POSIX_C_SOURCE 200809L
#include <stddef.h>
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


_PROFILE = """#include <time.h>
static double layer_seconds[{layers}];
int32_t graphopt_tick(int32_t layer) {{
    static double last;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (layer >= 0) layer_seconds[layer] += seconds - last;
    clock_gettime(CLOCK_MONOTONIC, &now);
    last = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    return 0;
}}
__attribute__((visibility("default"))) const double *graphopt_layer_times(void) {{ return layer_seconds; }}

"""


def glue_source(programs: Sequence[Program], plans: Sequence[MemoryPlan], profile: bool = False) -> str:
    """The source text, one entry a variant. With `profile` it adds up the seconds that each kernel takes."""
    parts = [_HEADER]
    if profile:
        parts.append(_PROFILE.format(layers=max(len(programs[0].kernels()), 1)))
    rows = []
    for number, (program, plan) in enumerate(zip(programs, plans, strict=True)):
        inputs, outputs = len(program.inputs), len(program.outputs)
        arguments = [
            "weights",
            *(f"in[{i}]" for i in range(inputs)),
            *(f"out[{i}]" for i in range(outputs)),
            "workspace",
        ]
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
