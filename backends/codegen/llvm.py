"""TIR to machine code: the passes that flat, hand-scheduled kernels need, then LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import ir, tirx
from tvm_ffi import structural_equal, structural_hash

from graphopt.backends.codegen.driver import driver_function
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Kernel, Program

SYMBOL = "graphopt_variant_{}"
"""Name of the driver of shape variant N."""


@dataclass(frozen=True)
class Code:
    """An object file in memory, and how many distinct kernels it holds."""

    object: bytes
    kernels: int


def generate(programs: Sequence[Program], plans: Sequence[MemoryPlan], target: Any) -> Code:
    """Compile the kernels of all programs, equal ones once, and one driver a program into one object."""
    functions: dict[Kernel, Any] = {}
    module: dict[Any, Any] = {}
    by_hash: dict[Any, list[tuple[Any, Any]]] = {}
    for program in programs:
        for kernel in program.kernels():
            functions[kernel] = _intern(kernel, module, by_hash)
    kernels = len(module)
    for i, (program, plan) in enumerate(zip(programs, plans, strict=True)):
        name = SYMBOL.format(i)
        module[ir.GlobalVar(name)] = driver_function(program, plan, functions).with_attr("global_symbol", name)
    host = target.with_host(target)
    lowered = _passes()(ir.IRModule({var: f.with_attr("target", host) for var, f in module.items()}))
    return Code(_object(lowered, target), kernels)


def _intern(kernel: Kernel, module: dict[Any, Any], by_hash: dict[Any, list[tuple[Any, Any]]]) -> Any:
    """The global variable of a function equal to the kernel's, added to the module if it is new."""
    candidates = by_hash.setdefault(structural_hash(kernel.function), [])
    for variable, function in candidates:
        if structural_equal(function, kernel.function):
            return variable
    variable = ir.GlobalVar(f"{kernel.name}_{len(module)}")
    module[variable] = kernel.function
    candidates.append((variable, kernel.function))
    return variable


def _passes() -> Any:
    return tvm.ir.transform.Sequential(
        [
            tirx.transform.StmtSimplify(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            tirx.transform.BF16StorageLegalize(),
            tirx.transform.LowerTVMBuiltin(),
            tirx.transform.LowerIntrin(),
        ]
    )


def _object(module: Any, target: Any) -> bytes:
    import tempfile
    from pathlib import Path

    library = tvm.get_global_func("target.build.llvm")(module, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.o"
        library.write_to_file(str(path))
        return path.read_bytes()
