"""What the code generator does before LLVM."""

from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import onnx_ir as ir
import pytest

from graphopt.backends.codegen import llvm
from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.function import kernel_function
from graphopt.backends.codegen.llvm import generate, lowered
from graphopt.backends.codegen.memory import plan_memory
from graphopt.backends.codegen.program import Buffer, Role
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import find_target, native
from tests.conftest import make_model


def test_named_floats_are_computed_once() -> None:
    """Each of forty names uses the one before twice: put in place of each other they would be 2**40 terms."""
    source, out = Buffer("in", 16, "float32", Role.INPUT), Buffer("out", 16, "float32", Role.OUTPUT)
    k = KernelBuilder()
    with k.loop(16, "vector", "lane") as lane:
        value: Expr = k.bind(k.load(source, lane))
        for _ in range(40):
            value = k.bind(value * (value + const(1.0, "float32")))
        k.store(out, lane, value)
    function, _ = kernel_function(k)
    text = lowered({"kernel": function}, native().llvm()).script()
    assert 40 <= text.count("*") <= 80


@pytest.mark.parametrize(("name", "alone"), [("aarch64:a64fx", True), ("aarch64:neoverse-n2", False)])
def test_options_of_llvm_are_set_by_one_compilation_at_a_time(
    name: str, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The width of a64fx's vectors is one of LLVM's own: two that set and restore it at once left it to the targets after them."""
    target = find_target(name)
    programs = [lower_model(_sum(), target.core)]
    others = Barrier(2)

    def compiled(module: Any, target: Any) -> bytes:
        with suppress(BrokenBarrierError):
            others.wait(timeout=0.5)
            met.append(module)
        return b""

    met: list[Any] = []
    monkeypatch.setattr(llvm, "_object", compiled)
    monkeypatch.setattr(llvm.os, "sched_getaffinity", lambda process: {0, 1})
    generate(programs, plan_memory(programs), target.llvm())
    assert len(met) == (0 if alone else 2)


def _sum() -> ir.Model:
    return make_model("agraph (float[64] x) => (float[64] y) { y = Add(x, x) }")
