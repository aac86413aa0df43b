"""The C file that tells the runtime of GPUs which kernels a library holds, and in which order it launches them on what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Buffer, Kernel, Program, Role

WEIGHTS, WORKSPACE = "GPU_WEIGHTS", "GPU_WORKSPACE"

_IMAGE = """__asm__(".section .rodata\\n.balign 64\\nimage_{number}: .incbin \\"{path}\\"\\n.text\\n");
extern const unsigned char image_{number}[] __attribute__((visibility("hidden")));
"""

_VARIANT = """static const gpu_argument arguments_{number}[] = {{{arguments}}};
static const gpu_launch launches_{number}[] = {{{launches}}};
static const size_t tensor_bytes_{number}[] = {{{tensor_bytes}}};

"""


def glue_source(
    programs: Sequence[Program],
    plans: Sequence[MemoryPlan],
    images: Sequence[tuple[Path, Sequence[str]]],
    symbols: Mapping[Kernel, str],
    kernels_wait: bool,
) -> str:
    """The source text. `images` are files of machine code with the symbols in each, `symbols` the one of every kernel. Kernels
    that `wait` for those before them can be launched early."""
    kernels = [(image, symbol) for image, (_, held) in enumerate(images) for symbol in held]
    numbers = {symbol: number for number, (_, symbol) in enumerate(kernels)}
    parts = ['#include "gpu.h"\n\n']
    parts += [_IMAGE.format(number=number, path=path) for number, (path, _) in enumerate(images)]
    rows = []
    for number, (program, plan) in enumerate(zip(programs, plans, strict=True)):
        parts.append(_variant(number, program, plan, numbers, symbols))
        inputs, outputs, launches = len(program.inputs), len(program.outputs), len(program.steps)
        sizes = f"{inputs}, {outputs}, {plan.arena_bytes}, tensor_bytes_{number}"
        rows.append(f"{{{sizes}, launches_{number}, {launches}, arguments_{number}}}")
    names = [f'{{{image}, "{symbol}"}}' for image, symbol in kernels]
    parts += [
        _table("unsigned char *const gpu_images", [f"image_{number}" for number in range(len(images))]),
        _table("gpu_kernel gpu_kernels", names),
        _table("gpu_variant gpu_variants", rows),
        f"const int gpu_image_count = {len(images)};\n",
        f"const int gpu_kernel_count = {len(kernels)};\n",
        f"const int gpu_variant_count = {len(rows)};\n",
        f"const int gpu_kernels_wait = {int(kernels_wait)};\n",
        f"const size_t gpu_weights_bytes = {plans[0].weights_bytes};\n",
    ]
    return "".join(parts)


def _variant(
    number: int,
    program: Program,
    plan: MemoryPlan,
    numbers: Mapping[str, int],
    symbols: Mapping[Kernel, str],
) -> str:
    tensors = [*program.inputs, *program.outputs]
    places = {buffer: f"{{{position}, 0}}" for position, buffer in enumerate(tensors)}
    arguments: list[str] = []
    launches: list[str] = []
    for kernel in program.kernels():
        assert kernel.launch is not None
        launch = kernel.launch
        facts = [numbers[symbols[kernel]], launch.blocks, launch.threads, launch.shared]
        launches.append(_row([*facts, len(arguments), len(kernel.buffers)]))
        arguments += [places.get(buffer) or _planned(buffer, plan) for buffer in kernel.buffers]
    return _VARIANT.format(
        number=number,
        arguments=", ".join(arguments) or "{0}",
        launches=", ".join(launches) or "{0}",
        tensor_bytes=", ".join(str(buffer.nbytes) for buffer in tensors) or "0",
    )


def _planned(buffer: Buffer, plan: MemoryPlan) -> str:
    """An argument that lies in weights or workspace."""
    if buffer.role is Role.CONSTANT:
        return _row([WEIGHTS, plan.weights[buffer]])
    return _row([WORKSPACE, plan.arena[buffer]])


def _row(values: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, values))}}}"


def _table(name: str, rows: Sequence[str]) -> str:
    return f"const {name}[] = {{{', '.join(rows) or '0'}}};\n"
