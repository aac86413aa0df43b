"""Puts a compiled model, the runtime and a C interface of its own into one library, and writes all that a build needs.

Everything but the interface is local to the library: a program may link any number of models. The files form a prefix, as
`make install` would leave it: include/, lib/, lib/cmake/, lib/pkgconfig/, and share/ for weights that are not embedded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphopt.backends.codegen.link import LINK_FLAGS, write_objects
from graphopt.backends.codegen.toolchain import (
    BARE,
    SINGLE_THREAD,
    WITHOUT_FORKS,
    companion,
    compile_sources,
    linker_flags,
    run_tool,
    thread_flags,
)
from graphopt.backends.compiler import Library
from graphopt.backends.export.interface import VariantFacts, describe
from graphopt.backends.targets import Target
from graphopt.errors import OutputError
from graphopt.files import replacing_together

KINDS = ("static", "library", "object", "c-header")
"""An archive, a shared library, one object file, or the headers alone."""

FILES = {"static": "lib{}.a", "library": "lib{}.so", "object": "{}.o"}

CMAKE_KINDS = {"static": "STATIC", "library": "SHARED", "object": "OBJECT"}

FUNCTIONS = ("error_string", "input", "output")
HANDLES = ("create", "destroy", "execute")

WEIGHTS = """    .section .rodata
    .globl {0}_weights
    .balign 64
{0}_weights:
    .incbin "weights.bin"
    .section .note.GNU-stack,"",%progbits
"""


@dataclass(frozen=True)
class Export:
    """What is to be emitted: a model of a name that C allows, for a target."""

    library: Library
    name: str
    target: Target
    kind: str = "static"
    embedded: bool = True
    single_thread: bool = False

    @cached_property
    def variants(self) -> list[VariantFacts]:
        return describe(self.name, self.library.variants, self.embedded)

    @property
    def weights_file(self) -> str:
        """Where weights that are not embedded lie, below the prefix."""
        return f"share/{self.name}/weights.bin"

    @property
    def runtime(self) -> tuple[str, ...]:
        """The sources of the C runtime that it takes."""
        if not self.has_handles:
            return BARE
        return SINGLE_THREAD if self.single_thread else WITHOUT_FORKS

    @property
    def has_handles(self) -> bool:
        """Whether the interface has handles, which take an operating system."""
        return self.target.platform.hosted

    @property
    def has_threads(self) -> bool:
        return self.has_handles and not self.single_thread

    @property
    def functions(self) -> list[str]:
        """The symbols of the interface."""
        runs = [f"run{variant.suffix}" for variant in self.variants]
        handles = HANDLES if self.has_handles else ()
        return [f"{self.name}_{function}" for function in (*FUNCTIONS, *handles, *runs)]

    def render(self, template: str) -> str:
        """The text of one of the files."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        loader = PackageLoader("graphopt.backends.export")
        environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
        types = sorted({t.dtype for variant in self.variants for t in (*variant.inputs, *variant.outputs)})
        signature = [
            f"{kind[:-1]} {t.comment}"
            for kind in ("inputs", "outputs")
            for t in getattr(self.variants[0], kind)
        ]
        facts: dict[str, Any] = {
            "name": self.name,
            "upper": self.name.upper(),
            "target": self.target.name,
            "variants": self.variants,
            "types": types,
            "signature": signature,
            "weights_bytes": len(self.library.weights),
            "embedded": self.embedded,
            "handles": self.has_handles,
            "threads": self.has_threads,
            "kind": CMAKE_KINDS.get(self.kind, ""),
            "file": FILES.get(self.kind, "").format(self.name),
            "version": version("graphopt"),
        }
        return environment.get_template(template).render(facts)


def emit(export: Export, prefix: Path) -> list[Path]:
    """Write the files below `prefix`, all or none. Raises TargetError without a compiler, OutputError where that fails."""
    name = export.name
    files: dict[str, bytes] = {f"include/{name}.h": export.render("model.h").encode()}
    if export.has_handles:
        files[f"include/{name}.hpp"] = export.render("model.hpp").encode()
    if export.kind != "c-header":
        files[f"lib/{FILES[export.kind].format(name)}"] = _build(export)
        files[f"lib/cmake/{name}/{name}Config.cmake"] = export.render("config.cmake").encode()
        if export.kind != "object":
            files[f"lib/pkgconfig/{name}.pc"] = export.render("model.pc").encode()
        if not export.embedded:
            files[export.weights_file] = export.library.weights
    paths = [prefix / path for path in files]
    for path in paths:
        _make_folder(path)
    with replacing_together(paths) as opened:
        for file, content in zip(opened, files.values(), strict=True):
            file.write(content)
    return paths


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent}: {error.strerror}") from error


def _build(export: Export) -> bytes:
    """The library."""
    with tempfile.TemporaryDirectory(prefix="graphopt-export-") as temporary:
        folder = Path(temporary)
        parts = _objects(export, folder)
        build = _share if export.kind == "library" else _join
        return (folder / build(export, parts, folder)).read_bytes()


def _objects(export: Export, folder: Path) -> list[str]:
    """Everything that belongs into the library, compiled: names of object files."""
    sources = {
        **({"glue.c": export.library.glue} if export.has_handles else {}),
        "interface.c": export.render("model.c"),
        **({"weights.S": WEIGHTS.format(export.name)} if export.embedded else {}),
    }
    for name, text in {**sources, f"{export.name}.h": export.render("model.h")}.items():
        (folder / name).write_text(text)
    if export.embedded:
        (folder / "weights.bin").write_bytes(export.library.weights)
    cc = export.target.compiler
    compiled = compile_sources(cc, list(sources), folder, f"-I{folder}")
    return [*write_objects(export.library.objects, cc, export.runtime, folder), *compiled]


def _share(export: Export, parts: Sequence[str], folder: Path) -> str:
    """A shared library that exports the interface; gives its name."""
    names = " ".join(f"{function};" for function in export.functions)
    (folder / "exports.map").write_text(f"{{ global: {names} local: *; }};\n")
    cc = export.target.compiler
    flags = [*LINK_FLAGS, *linker_flags(cc), "-Wl,-s", "-Wl,--version-script=exports.map"]
    flags += [f"-Wl,-soname,lib{export.name}.so"]
    libraries = ["-lm", *thread_flags(export.runtime)]
    run_tool([cc, *flags, "-o", "library.so", *parts, *libraries], folder)
    return "library.so"


def _join(export: Export, parts: Sequence[str], folder: Path) -> str:
    """One object of which the interface alone can be seen, or an archive of it; gives its name."""
    cc = export.target.compiler
    run_tool([cc, "-r", "-nostdlib", "-o", "joined.o", *parts], folder)
    kept = [f"--keep-global-symbol={function}" for function in export.functions]
    whole = f"{export.name}.o"
    run_tool([companion(cc, "objcopy"), *kept, "--strip-debug", "joined.o", whole], folder)
    if export.kind == "object":
        return whole
    run_tool([companion(cc, "ar"), "rcsD", "library.a", whole], folder)
    return "library.a"
