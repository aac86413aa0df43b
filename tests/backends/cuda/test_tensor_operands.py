"""Right operands of run time: turned where that pays, and read as they lie elsewhere."""

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.backends.cuda import tensor_operands
from graphopt.backends.cuda.functions import DEFINITIONS
from graphopt.backends.cuda.machine import GPU
from graphopt.backends.cuda.tensor_tiles import AMPERE, HOPPER, copy_cycles
from graphopt.backends.kernels.core import GPU as CORE
from graphopt.backends.kernels.core import GPU_HOPPER, Core
from graphopt.backends.lower.graph import lower_model
from graphopt.backends.targets import Target
from graphopt.passes.precision import BFLOAT16_EVERYWHERE, TF32_EVERYWHERE, Half, Precision
from graphopt.rewriting.pipeline import Context
from tests.backends.cuda.test_tensor_cores import halves, kernels
from tests.backends.lower.harness import Nodes, fixed
from tests.conftest import make_model


def product(rows: int, depth: int, columns: int, dtype: str = "float16") -> ir.Model:
    """Of two operands of run time."""
    return make_model(
        f"g ({dtype}[{rows},{depth}] x, {dtype}[{depth},{columns}] w) => ({dtype}[{rows},{columns}] y) {{ y = MatMul(x, w) }}"
    )


def lowered(model: ir.Model, core: Core = GPU_HOPPER) -> list[tuple[str, bool]]:
    """The name of every kernel, and whether it multiplies on tensor cores."""
    found = lower_model(model, core, machine=GPU).kernels()
    return [(kernel.name, "mma" in str(kernel.function.attrs[DEFINITIONS])) for kernel in found]


def by_groups(model: ir.Model, core: Core) -> bool:
    """Whether groups of warps multiply."""
    found = lower_model(model, core, machine=GPU).kernels()
    return any("wgmma" in str(kernel.function.attrs[DEFINITIONS]) for kernel in found)


@pytest.fixture
def copies_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small operands are turned as large ones are."""
    monkeypatch.setattr(tensor_operands, "_pays", lambda *facts: True)


def test_large_operands_are_turned() -> None:
    assert lowered(product(4096, 4096, 4096)) == [("copy", False), ("gemm", True)]


def test_all_who_read_an_operand_share_its_copy() -> None:
    text = """g (float16[4096,4096] x, float16[4096,4096] w) => (float16[4096,4096] y, float16[4096,4096] z) {
        y = MatMul(x, w) r = Relu(x) z = MatMul(r, w) }"""
    assert [name for name, _ in lowered(make_model(text))].count("copy") == 1


@pytest.mark.parametrize("core", [CORE, GPU_HOPPER], ids=["ampere", "hopper"])
def test_columns_that_are_no_whole_chunks_reach_tensor_cores_by_a_copy(core: Core) -> None:
    """Which warps cannot read as they lie."""
    text = """g (float16[2048,2048] x, float16[2048,2056] w) => (float16[2048,2048] y) {
        p = Slice(w, first, last, axis) y = MatMul(x, p) }"""
    places = {name: np.array([value]) for name, value in (("first", 1), ("last", 2049), ("axis", 1))}
    assert lowered(make_model(text, **places), core) == [("copy", False), ("gemm", True)]


@pytest.mark.parametrize(
    "extents", [(64, 64, 64), (8, 4096, 4096), (512, 4096, 4096)], ids=["all", "few rows", "rows"]
)
def test_little_work_does_not_pay_for_a_copy(extents: tuple[int, int, int]) -> None:
    assert ("copy", False) not in lowered(product(*extents))


def test_columns_that_lie_along_the_depth_are_read_as_they_lie() -> None:
    text = "g (float16[4096,4096] x, float16[4096,4096] w) => (float16[4096,4096] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    assert lowered(make_model(text)) == [("gemm", True)]


def test_warps_transpose_on_the_way() -> None:
    """So that nothing is gained where there are no groups of them."""
    assert lowered(product(4096, 4096, 4096), CORE) == [("gemm", True)]


@pytest.mark.usefixtures("copies_are_free")
@pytest.mark.parametrize("depth", [20, 36])
def test_operands_that_tensor_cores_do_not_take_are_not_turned(depth: int) -> None:
    nodes = Nodes()
    nodes.add("MatMul", halves(40, depth), halves(depth, 64))
    assert [name for name, _ in kernels(nodes)] == ["gemm"]


@pytest.mark.usefixtures("copies_are_free")
def test_turned_operands_give_the_same_results(gpu: Target) -> None:
    """Also of batches that are shared, of columns that are no whole chunks, of what is computed on the way, and of constants, but for
    those that tensor cores do not take."""
    nodes = Nodes()
    nodes.add("MatMul", halves(3, 2, 33, 40), halves(2, 40, 72))
    nodes.add("MatMul", halves(65, 16), halves(16, 203))
    nodes.add("MatMul", halves(65, 16), nodes.add("Relu", halves(16, 24)))
    nodes.add("MatMul", halves(3, 2, 9, 24), fixed(halves(2, 24, 16)))
    nodes.add("MatMul", halves(9, 20), fixed(halves(20, 16)))
    assert [name for name, multiplies in kernels(nodes) if multiplies] == ["gemm"] * 4
    nodes.check(gpu)


@pytest.mark.parametrize("core", [CORE, GPU_HOPPER], ids=["ampere", "hopper"])
@pytest.mark.parametrize("half", [TF32_EVERYWHERE, BFLOAT16_EVERYWHERE], ids=["tf32", "bf16"])
def test_rounded_operands_reach_tensor_cores(half: Half, core: Core) -> None:
    """Each is rounded once, as the product reads it."""
    model = product(1024, 1024, 1024, "float")
    Precision(half=half).apply(model, Context())
    assert lowered(model, core)[:3] == [("pointwise", False), ("pointwise", False), ("gemm", True)]
    assert by_groups(model, core) == (core == GPU_HOPPER)


def test_a_copy_costs_as_long_as_its_bytes_take() -> None:
    assert copy_cycles(HOPPER, 1 << 24) > 2 * copy_cycles(HOPPER, 1 << 20)
    assert copy_cycles(AMPERE, 1 << 24) > copy_cycles(HOPPER, 1 << 24)
