"""Compile ONNX models to small, fast, self-contained libraries.

Importing this package is cheap: what a name needs (onnx, numpy, tvm) is loaded when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphopt.api import compare, compile, load, optimize
    from graphopt.compression.quantizing import quantize
    from graphopt.errors import GraphoptError

__all__ = ["GraphoptError", "compare", "compile", "load", "optimize", "quantize"]

_HOMES = {
    "GraphoptError": "errors",
    "compare": "api",
    "compile": "api",
    "load": "api",
    "optimize": "api",
    "quantize": "compression.quantizing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphopt' has no attribute {name!r}")
    return getattr(import_module(f"graphopt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
