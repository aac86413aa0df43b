import argparse
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import simplify
from graphopt.model import save
from tests.conftest import make_model

NESTED = """g (bool c, float[2] x) => (float[2] y) {
    y = If (c) <then_branch = t () => (float[2] p) { p = Relu(x) }, else_branch = e () => (float[2] q) { q =
    Neg(x) }>
}"""
MODEL = Path(__file__).parents[2] / "models" / "digits_mlp.onnx"


def proto(text: str, opset: int = 18) -> onnx.ModelProto:
    return ir.to_proto(make_model(text, opset))


def relu(by: str, domain: str = "") -> onnx.ModelProto:
    return proto(f"g (float[2] x) => (float[2] y) {{ y = {domain}{by}(x) }}")


def test_nodes_of_subgraphs_count_and_constants_do_not() -> None:
    model = proto(NESTED)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["unused"], value_float=1.0))
    assert simplify.count_nodes(model.graph) == 3


def test_what_is_not_standard_is_found() -> None:
    plain, foreign = relu("Relu"), relu("Gelu", "com.microsoft.")
    assert simplify.foreign(plain, plain) == ""
    assert simplify.foreign(foreign, foreign) == ""
    assert simplify.foreign(plain, foreign) == "operators of com.microsoft"
    newer = proto("g (float[2] x) => (float[2] y) { y = Relu(x) }", 20)
    assert simplify.foreign(plain, newer) == "opset 20 instead of 18"
    with_function = relu("Relu")
    with_function.functions.add()
    assert simplify.foreign(plain, with_function) == "functions"


@pytest.mark.parametrize(("operator", "problem"), [("Relu", ""), ("Abs", "output 'y'")])
def test_a_changed_result_is_a_problem(tmp_path: Path, operator: str, problem: str) -> None:
    for name, op in (("before", "Relu"), ("after", operator)):
        save(make_model(f"g (float[2] x) => (float[2] y) {{ y = {op}(x) }}"), tmp_path / f"{name}.onnx")
    result = simplify.check(tmp_path / "before.onnx", tmp_path / "after.onnx", 1.0)
    assert result.problem.startswith(problem)
    assert bool(result.problem) == bool(problem)


def test_custom_operators_are_unverified_not_wrong(tmp_path: Path) -> None:
    save(make_model("g (float[2] x) => (float[2] y) { y = graphopt.Unheard(x) }"), tmp_path / "m.onnx")
    result = simplify.check(tmp_path / "m.onnx", tmp_path / "m.onnx", 1.0)
    assert result.problem == ""
    assert result.unverified.startswith("not verified: ONNX Runtime")


def test_a_wrong_result_does_not_win() -> None:
    good, better = simplify.Result(10, 1.0, 100), simplify.Result(5, 1.0, 50)
    wrong = simplify.Result(1, 1.0, 1, problem="wrong")
    line = {"graphopt": good, "onnxsim": wrong, "onnxslim": good}
    assert simplify.wins(line, lambda one: one.nodes, 1.0)
    assert not simplify.wins({**line, "graphopt": wrong}, lambda one: one.nodes, 1.0)
    assert not simplify.wins({**line, "onnxslim": better}, lambda one: one.nodes, 1.0)
    assert "on 1 of 1 models" in simplify.summary({"m": line})
    assert "Wrong: m." in simplify.summary({"m": {**line, "graphopt": wrong}})


def test_one_tool_from_end_to_end() -> None:
    options = argparse.Namespace(repeats=1, timeout=60.0)
    result = simplify.judge("graphopt", MODEL, options)
    assert (result.problem, result.unverified) == ("", "")
    assert 0 < result.nodes <= 11
    assert result.milliseconds > 0
    assert simplify.judge("no_such_tool", MODEL, options).problem.startswith("failed: KeyError")
