"""Small models from ONNX text, and a reference to compare them with."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from graphopt.rewriting.pipeline import Context, Outcome, Pass

ZOO = Path(os.environ["GRAPHOPT_ZOO"]) if "GRAPHOPT_ZOO" in os.environ else None
CONFORMANCE = "conformance"
"""Where a node test of ONNX leaves what became of it."""

ZOO_MODELS = sorted((ZOO / "models").glob("*.onnx")) if ZOO is not None else []


def make_model(text: str, opset: int = 18, /, **initializers: np.ndarray) -> ir.Model:
    """A model from the text of a graph, such as ``agraph (float[2] x) => (float[2] y) { y = Relu(x) }``.

    Keyword arguments become initializers. Constants in the text become initializers as well.
    """
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1, "graphopt": 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in initializers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(proto)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def reference(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of ONNX Runtime without graph optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


_KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "FLOAT": lambda rng, shape: rng.standard_normal(shape).astype(np.float32),
    "DOUBLE": lambda rng, shape: rng.standard_normal(shape),
    "FLOAT16": lambda rng, shape: rng.standard_normal(shape).astype(np.float16),
    "BOOL": lambda rng, shape: rng.integers(0, 2, shape).astype(bool),
    "INT64": lambda rng, shape: rng.integers(0, 4, shape),
    "INT32": lambda rng, shape: rng.integers(0, 4, shape).astype(np.int32),
    "UINT8": lambda rng, shape: rng.integers(0, 255, shape).astype(np.uint8),
    "INT8": lambda rng, shape: rng.integers(-128, 127, shape).astype(np.int8),
}


def random_feeds(model: ir.Model, seed: int = 0, free: int = 2) -> dict[str, np.ndarray]:
    """Random values for every input; free dimensions become ``free``."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        shape = tuple(dim if isinstance(dim, int) else free for dim in value.shape)
        feeds[value.name] = _KINDS[value.dtype.name](rng, shape)
    return feeds


def ops(model: ir.Model) -> Counter[str]:
    """How often each operator occurs, subgraphs included."""
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


def apply_and_check(
    each: Pass, model: ir.Model, *, exact: bool = True, tolerance: float = 1e-5, free: int = 2
) -> Outcome:
    """Applies a pass and asserts that the model is valid, computes the same, keeps its interface, and that a second
    application changes nothing."""
    feeds = random_feeds(model, free=free)
    names = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    before = reference(model, feeds)
    outcome = each.apply(model, Context())
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    after = reference(model, feeds)
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == names
    for expected, actual in zip(before, after, strict=True):
        if exact:
            np.testing.assert_array_equal(actual, expected, strict=True)
        else:
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, strict=True)
    assert not each.apply(model, Context()).modified, "the pass is not idempotent"
    return outcome


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real models; skips where there is none."""
    if ZOO is None or not (ZOO / "models").is_dir():
        pytest.skip("no zoo of real models: set GRAPHOPT_ZOO")
    return ZOO


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the conformance suite, where it ran, in this process or others."""
    reports = (report for found in terminalreporter.stats.values() for report in found)
    facts = (dict(report.user_properties) for report in reports if getattr(report, "when", "") == "call")
    if results := [each[CONFORMANCE] for each in facts if CONFORMANCE in each]:
        import conformance

        terminalreporter.section("ONNX backend node tests")
        terminalreporter.write_line(conformance.render([conformance.Result(**each) for each in results]))
