"""What the code generator does before LLVM."""

from graphopt.backends.codegen.builder import Expr, KernelBuilder, const
from graphopt.backends.codegen.function import kernel_function
from graphopt.backends.codegen.llvm import lowered
from graphopt.backends.codegen.program import Buffer, Role
from graphopt.backends.targets import native


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
