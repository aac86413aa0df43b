"""TIR to machine code: the passes that flat, hand-scheduled kernels need, then LLVM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import ir, tirx
from tvm_ffi import structural_equal, structural_hash, structural_mutate

from graphopt.backends.codegen.builder import dtype_of
from graphopt.backends.codegen.driver import driver_function
from graphopt.backends.codegen.memory import MemoryPlan
from graphopt.backends.codegen.program import Kernel, Program

SYMBOL = "graphopt_variant_{}"
"""Name of the driver of shape variant N."""


CHUNK = 8
"""Kernels that LLVM compiles at a time: enough to be worth a call, few enough to show progress and to share cores."""

KEPT = "graphopt_kept"
"""A call that stands around the value of a name while passes must not look at it."""

_CALL_EXTERN = ir.Op.get("tirx.call_extern")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Code:
    """Object files in memory, and the symbol of every kernel, of which equal ones share one."""

    objects: list[bytes]
    symbols: dict[Kernel, str]


def generate(
    programs: Sequence[Program],
    plans: Sequence[MemoryPlan],
    target: Any,
    progress: Progress = lambda stage: None,
    profile: bool = False,
) -> Code:
    """Compile the kernels of all programs, equal ones once, and one driver a program."""
    names, functions = distinct_kernels(programs)
    drivers = {
        SYMBOL.format(i): driver_function(program, plan, names, profile)
        for i, (program, plan) in enumerate(zip(programs, plans, strict=True))
    }
    symbols = list(functions)
    chunks = [symbols[start : start + CHUNK] for start in range(0, len(symbols), CHUNK)]
    modules = [*({symbol: functions[symbol] for symbol in chunk} for chunk in chunks), drivers]
    done = 0

    def build(module: dict[str, Any]) -> bytes:
        nonlocal done
        code = _compile(module, target)
        done += len(module)
        progress(f"compile: {min(done, len(symbols))} of {len(symbols)} kernels")
        return code

    with ThreadPoolExecutor(_workers(target)) as pool:
        return Code(list(pool.map(build, modules)), names)


def _workers(target: Any) -> int:
    """LLVM's own options belong to the process: two compilations that set and restore them at once leave them set."""
    return 1 if target.attrs.get("cl-opt") else len(os.sched_getaffinity(0))


def distinct_kernels(programs: Sequence[Program]) -> tuple[dict[Kernel, str], dict[str, Any]]:
    """The symbol of every kernel and the function of every symbol; equal functions share a symbol."""
    names: dict[Kernel, str] = {}
    functions: dict[str, Any] = {}
    by_hash: dict[int, list[str]] = {}
    for program in programs:
        for kernel in program.kernels():
            same = by_hash.setdefault(structural_hash(kernel.function), [])
            symbol = next((s for s in same if structural_equal(functions[s], kernel.function)), None)
            if symbol is None:
                symbol = f"graphopt_{kernel.name}_{len(functions)}"
                functions[symbol] = kernel.function
                same.append(symbol)
            names[kernel] = symbol
    return names, functions


def _compile(module: dict[str, Any], target: Any) -> bytes:
    return _object(lowered(module, target), target)


def lowered(module: dict[str, Any], target: Any) -> Any:
    """The functions, by symbol, as TIR for LLVM."""
    host = target.with_host(target)
    functions = {
        ir.GlobalVar(symbol): _named(function, symbol).with_attr("target", host)
        for symbol, function in module.items()
    }
    module_of_all = keeping_names(tirx.transform.StmtSimplify(), ir.IRModule(functions))
    return keeping_names(tirx.transform.LowerIntrin(), _passes()(module_of_all))


def keeping_names(transform: Any, module: Any) -> Any:
    """What a pass makes of a module, with floats that have a name left alone.

    Such a pass would put each value in place of its name wherever that is used, or look through it as if it did: an expression
    of a few names, each of which uses the one before twice, takes it for ever.
    """

    def keep(bind: Any, mutator: Any) -> Any:
        dtype = dtype_of(bind.value)
        if not dtype.startswith("float"):
            return mutator.default_mutate(bind)
        return tirx.Bind(bind.var, tirx.call_extern(dtype, KEPT, bind.value))

    def release(call: Any, mutator: Any) -> Any:
        is_kept = call.op.same_as(_CALL_EXTERN) and getattr(call.args[0], "value", None) == KEPT
        return mutator.mutate(call.args[1]) if is_kept else mutator.default_mutate(call)

    kept = each_body(module, [(tirx.Bind, keep)])
    return each_body(transform(kept), [(ir.Call, release)])


def each_body(module: Any, callbacks: Sequence[tuple[Any, Any]]) -> Any:
    """The module with the bodies of its functions mutated."""
    return ir.IRModule(
        {
            name: tirx.PrimFunc(f.params, structural_mutate(f.body, callbacks), f.ret_type, f.attrs)
            for name, f in module.functions.items()
        }
    )


def _named(function: Any, symbol: str) -> Any:
    """The function under a name, its body too, which becomes a function of its own: profilers and disassemblers show it."""

    def name_body(scope: Any, mutator: Any) -> Any:
        if scope.attr_key != "compute_scope":
            return mutator.default_mutate(scope)
        return tirx.AttrStmt(scope.node, scope.attr_key, ir.StringImm(f"{symbol}.body"), scope.body)

    body = structural_mutate(function.body, [(tirx.AttrStmt, name_body)])
    named = tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)
    return named.with_attr("global_symbol", symbol)


def _passes() -> Any:
    return tvm.ir.transform.Sequential(
        [
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.UnrollLoop(),
            tirx.transform.BF16StorageLegalize(),
            tirx.transform.LowerTVMBuiltin(),
        ]
    )


def _object(module: Any, target: Any) -> bytes:
    library = tvm.get_global_func("target.build.llvm")(module, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.o"
        library.write_to_file(str(path))
        return path.read_bytes()
