"""Kernels as CUDA C, printed by TVM."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import ir, tirx

from graphopt.backends.codegen.builder import dtype_of
from graphopt.backends.codegen.llvm import each_body, keeping_names
from graphopt.backends.cuda.functions import CLUSTER, DEFINITIONS
from graphopt.backends.cuda.instructions import BEGIN

OVERLAY, ALIGNED_OVERLAY = "extern __shared__ __align__(64)", "extern __shared__ __align__(1024)"
"""Rows of operands are shuffled by the bits of their addresses, so that tiles begin at multiples of eight rows."""

WAITING = 90
"""The first architecture whose kernels can be brought up while the ones before them run."""

DEVICE_FUNCTION = 2
"""TVM's calling convention of functions that a host launches."""


def cuda_source(functions: Mapping[str, Any], arch: str) -> str:
    """The text of the functions, by symbol, for an architecture such as `sm_90`."""
    target = tvm.target.Target({"kind": "cuda", "arch": arch, "max_threads_per_block": 1024})
    made = {ir.GlobalVar(name): _device(name, f, target) for name, f in functions.items()}
    module = each_body(ir.IRModule(made), [(tirx.Max, _larger), (tirx.Min, _smaller)])
    module = _passes()(keeping_names(tirx.transform.StmtSimplify(), module))
    with target:
        module = keeping_names(tirx.transform.LowerIntrin(), module)
        source: str = tvm.get_global_func("target.build.cuda")(module, target).inspect_source()
    source = source.replace(OVERLAY, ALIGNED_OVERLAY)
    for name, function in functions.items():
        source = _in_clusters(source, name, int(function.attrs[CLUSTER]))
    definitions = dict.fromkeys(d for f in functions.values() for d in json.loads(str(f.attrs[DEFINITIONS])))
    if kernels_wait(arch):
        definitions[BEGIN.definition] = None
    return "".join(definitions) + source


def kernels_wait(arch: str) -> bool:
    """Whether kernels wait by themselves for the ones before them."""
    return int(arch.removeprefix("sm_")) >= WAITING


def _device(symbol: str, function: Any, target: Any) -> Any:
    if kernels_wait(str(target.attrs["arch"])):
        begin = tirx.Evaluate(tirx.call_extern("int32", BEGIN.name))
        function = function.with_body(tirx.SeqStmt([begin, function.body]))
    facts = {
        "global_symbol": symbol,
        "target": target,
        "calling_conv": DEVICE_FUNCTION,
        "tirx.is_global_func": True,
        "tirx.kernel_launch_params": ["blockIdx.x", "threadIdx.x"],
    }
    return function.with_attr(facts)


def _in_clusters(source: str, name: str, blocks: int) -> str:
    """The text, where so many neighbouring blocks of a kernel form a cluster."""
    if blocks == 1:
        return source
    bounds = rf"(__launch_bounds__\(\d+\)) {name}\("
    return re.sub(bounds, rf"\1 __cluster_dims__({blocks}, 1, 1) {name}(", source)


def _larger(extreme: Any, mutator: Any) -> Any:
    a, b = mutator.mutate(extreme.a), mutator.mutate(extreme.b)
    return tirx.Select(a > b, a, b) if dtype_of(a).startswith("float") else tirx.Max(a, b)


def _smaller(extreme: Any, mutator: Any) -> Any:
    """As on CPUs a NaN in the second operand passes through, which the functions of CUDA C would drop."""
    a, b = mutator.mutate(extreme.a), mutator.mutate(extreme.b)
    return tirx.Select(a < b, a, b) if dtype_of(a).startswith("float") else tirx.Min(a, b)


def _passes() -> Any:
    return tvm.ir.transform.Sequential(
        [
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.BF16StorageLegalize(),
        ]
    )
