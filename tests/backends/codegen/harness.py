"""Runs scalar functions over arrays, in the vector loops in which kernels use them."""

import ctypes
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.backends.codegen.builder import KernelBuilder, dtype_of
from graphopt.backends.codegen.function import kernel_function
from graphopt.backends.codegen.glue import glue_source
from graphopt.backends.codegen.link import link
from graphopt.backends.codegen.llvm import generate
from graphopt.backends.codegen.memory import plan_memory
from graphopt.backends.codegen.program import Buffer, Kernel, Program, Role
from graphopt.backends.targets import native

LANES = 16

Scalar = Callable[..., Any]


def evaluate(functions: Mapping[str, Scalar], *arrays: np.ndarray) -> dict[str, np.ndarray]:
    """`function(k, element, ...)` for every function and element; the size is a multiple of LANES."""
    inputs = [Buffer(f"input{i}", a.size, str(a.dtype), Role.INPUT) for i, a in enumerate(arrays)]
    made = [_kernel(name, function, inputs) for name, function in functions.items()]
    outputs = [buffer for _, buffer in made]
    program = Program(inputs, outputs, [kernel for kernel, _ in made])
    plans = plan_memory([program])
    code = generate([program], plans, native().llvm())
    results = [np.empty(buffer.size, buffer.dtype) for buffer in outputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        link(code.objects, glue_source([program], plans), path)
        _run(ctypes.CDLL(str(path)), arrays, results)
    return dict(zip(functions, results, strict=True))


def _kernel(name: str, function: Scalar, inputs: list[Buffer]) -> tuple[Kernel, Buffer]:
    k = KernelBuilder()
    with k.loop(inputs[0].size // LANES) as v, k.loop(LANES, "vector") as lane:
        at = v * LANES + lane
        result = function(k, *(k.load(buffer, at) for buffer in inputs))
        out = Buffer(name, inputs[0].size, dtype_of(result), Role.OUTPUT)
        k.store(out, at, result)
    body, buffers = kernel_function(k)
    return Kernel(name, body, buffers, frozenset(k.written), name), out


def _run(library: ctypes.CDLL, inputs: Any, outputs: Any) -> None:
    library.graphopt_create.restype = ctypes.c_void_p
    model = ctypes.c_void_p(library.graphopt_create(None, 1))
    assert library.graphopt_run(model, 0, _pointers(inputs), _pointers(outputs)) == 0
    library.graphopt_destroy(model)


def _pointers(arrays: Any) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
