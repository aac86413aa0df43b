"""Wraps the body of a kernel, or of the driver, into a function that takes raw pointers and returns an int32 status.

The attributes are those that TVM's own MakePackedAPI leaves behind: `compute_scope` puts the body into an LLVM function
of its own, so that its parameters carry noalias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import ir, tirx

from graphopt.backends.codegen.builder import KernelBuilder, storage_dtype
from graphopt.backends.codegen.program import Buffer


def pointer(name: str, dtype: str) -> Any:
    """A parameter of type `dtype *`."""
    return tirx.Var(name, ir.PointerType(ir.PrimType(storage_dtype(dtype)), "global"))


def kernel_function(builder: KernelBuilder) -> tuple[Any, list[Buffer]]:
    """The function of a kernel and the buffers its parameters stand for, in order."""
    buffers = list(builder.buffers)
    pointers = [pointer(f"p{i}", buffer.dtype) for i, buffer in enumerate(buffers)]
    declared = [
        tirx.DeclBuffer(builder.buffers[buffer], data=p) for buffer, p in zip(buffers, pointers, strict=True)
    ]
    body = tirx.AttrStmt(tirx.const(0, "int32"), "compute_scope", ir.StringImm("body"), builder.body())
    for function in builder.functions:
        body = tirx.AttrStmt(
            tirx.const(0, "int32"), "pragma_import_llvm", ir.StringImm(function.definition), body
        )
    return raw_function(pointers, [*declared, body]), buffers


def raw_function(parameters: Sequence[Any], statements: Sequence[Any]) -> Any:
    """A function over raw pointers that runs `statements` and returns 0."""
    zero = tirx.const(0, "int32")
    body: Any = tirx.stmt_seq(*statements, tirx.stmt.Return(zero))
    body = tirx.AttrStmt("default", "device_id", zero, body)
    body = tirx.AttrStmt("default", "device_type", tirx.const(1, "int32"), body)
    function = tirx.PrimFunc(list(parameters), body, ir.PrimType("int32"))
    return function.with_attr("tirx.noalias", True)
