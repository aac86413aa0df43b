"""What `doctor` checks: everything that compiling and running need, in the order in which they need it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from graphopt.errors import GraphoptError

PINNED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
"""Versions that code generation was proved with; other pairs crash."""

REQUIRED = ("graphopt-runtime", "numpy", "onnx", "onnx-ir", "onnxruntime")
"""Distributions that any version will do of, which the installer ensured; ONNX Runtime is what results are compared with."""

PEERS = ("openvino", "torch")
"""Only `compare` wants them."""


@dataclass(frozen=True)
class Check:
    """One line of `doctor`; what is optional is `ok` even where it is absent."""

    name: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return asdict(self)

    def row(self) -> list[str]:
        return [self.name, "ok" if self.ok else "MISSING", self.detail]


def examine() -> list[Check]:
    """Every check, none of which stops the others."""
    return [
        Check("Python", sys.version_info >= (3, 11), sys.version.split()[0]),
        *(_pinned(name, wanted) for name, wanted in PINNED.items()),
        *(_installed(name) for name in REQUIRED),
        _compiler(),
        _native(),
        _threads(),
        *(_peer(name) for name in PEERS),
        _cuda(),
        _gpu(),
    ]


def _pinned(name: str, wanted: str) -> Check:
    found = _version(name)
    if found is None:
        return Check(name, False, f"pip install {name}=={wanted}")
    return Check(name, found == wanted, found if found == wanted else f"{found}, but {wanted} is needed")


def _installed(name: str) -> Check:
    found = _version(name)
    return Check(name, found is not None, found or f"pip install {name}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _compiler() -> Check:
    """Compiles the C runtime, because a compiler may be there and its headers not."""
    from graphopt.backends.codegen.toolchain import DEFAULT_CC, runtime_objects

    try:
        runtime_objects()
    except GraphoptError as error:
        return Check("C compiler", False, str(error))
    return Check("C compiler", True, f"{DEFAULT_CC} builds the runtime")


def _native() -> Check:
    from graphopt.backends.targets import native

    try:
        return Check("native target", True, native().name)
    except GraphoptError as error:
        return Check("native target", False, str(error))


def _threads() -> Check:
    from graphopt_runtime.cpu import default_threads

    return Check("threads", True, str(default_threads()))


def _peer(name: str) -> Check:
    from graphopt.backends.peers import BACKENDS

    return Check(f"peer {name}", True, BACKENDS[name].available() or "installed")


def _cuda() -> Check:
    """Only targets of GPUs want it."""
    from graphopt.backends.cuda.nvcc import describe_nvcc

    return Check("CUDA compiler", True, describe_nvcc())


def _gpu() -> Check:
    from graphopt_runtime.gpu import architectures

    return Check("NVIDIA GPU", True, max(architectures(), default="none"))
