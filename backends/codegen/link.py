"""Links the objects of a compiled model, its generated glue and the C runtime into one shared library."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphopt.backends.codegen.toolchain import (
    DEFAULT_CC,
    SOURCES,
    compile_sources,
    linker_flags,
    run_tool,
    runtime_objects,
    thread_flags,
)
from graphopt.files import replacing

LINK_FLAGS = (
    "-shared",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,--no-undefined",
    "-Wl,-z,relro,-z,now,-z,noexecstack",
)

EXPORTS = """{
  global:
    graphopt_create; graphopt_create_with; graphopt_run; graphopt_time; graphopt_set_threads; graphopt_set_passive;
    graphopt_destroy; graphopt_error_string; graphopt_layer_times; graphopt_failure;
    graphopt_run_on;
  local: *;
};
"""


def link(
    objects: Sequence[bytes],
    glue_c: str,
    out: Path,
    cc: str = DEFAULT_CC,
    *,
    sources: tuple[str, ...] = SOURCES,
) -> None:
    """Writes the shared library `out`; the same objects, glue and compiler give the same bytes. Kernels keep their names.

    `glue_c` includes "graphopt_rt.h" and defines `graphopt_variants` and `graphopt_variant_count`.
    Raises TargetError when the compiler is missing or refuses the glue or the object, OutputError when `out` cannot
    be written.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-link-") as temporary:
        folder = Path(temporary)
        parts = write_objects(objects, cc, sources, folder)
        (folder / "glue.c").write_text(glue_c)
        (folder / "exports.map").write_text(EXPORTS)
        parts += compile_sources(cc, ["glue.c"], folder)
        flags = [*LINK_FLAGS, *linker_flags(cc), "-Wl,--strip-debug", "-Wl,--version-script=exports.map"]
        run_tool([cc, *flags, "-o", "library.so", *parts, "-lm", *thread_flags(sources)], folder)
        with replacing(out) as file:
            file.write((folder / "library.so").read_bytes())


def write_objects(objects: Sequence[bytes], cc: str, sources: tuple[str, ...], folder: Path) -> list[str]:
    """Put the objects of a model and of the runtime into `folder`, and give their names."""
    contents = {f"compiled{i}.o": content for i, content in enumerate(objects)}
    contents |= dict(runtime_objects(cc, sources))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return list(contents)
