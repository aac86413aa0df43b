"""Compares compiled models with ONNX Runtime; one model holds many nodes, since compiling costs more than running."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir

from graphopt import model as models
from graphopt.artifacts import artifact
from graphopt.backends.compiler import compile_models
from graphopt.backends.execution import open_anywhere
from graphopt.backends.schedules.choice import Schedules
from graphopt.backends.targets import Target, native
from graphopt.compiling import manifest
from graphopt.rewriting.pipeline import Report
from tests.conftest import reference

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
"""Largest difference allowed, relative to the largest element."""


def compiled(
    model: ir.Model,
    feeds: Mapping[str, np.ndarray],
    target: Target | None = None,
    schedules: Schedules | None = None,
) -> list[np.ndarray]:
    """The outputs of the compiled model, run here or under an emulator; with other schedules than those of the rules."""
    target = native() if target is None else target
    library = compile_models([model], target, schedules=schedules)
    build = manifest.describe("test", Report(), target, library, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gopt"
        artifact.write(path, [build])
        runner, _ = open_anywhere(path)
        with runner:
            return list(runner.run(None, dict(feeds)))


def check(
    proto: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    target: Target | None = None,
    expected: Sequence[np.ndarray] | None = None,
) -> None:
    """Assert that the compiled model computes what ONNX Runtime does, or what is `expected`."""
    model = ir.from_proto(proto)
    expected = reference(model, feeds) if expected is None else expected
    models.normalise(model)
    for value, want, got in zip(model.graph.outputs, expected, compiled(model, feeds, target), strict=True):
        assert_same(value.name or "", got, want)


def assert_same(name: str, got: np.ndarray, want: np.ndarray) -> None:
    """Assert equal dtype and shape, and values within the tolerance of the dtype (integers equal)."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, name)
        return
    finite = np.abs(want[np.isfinite(want)], dtype=np.float64)
    allowed = TOLERANCE[str(want.dtype)] * max(float(finite.max(initial=0)), 1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=allowed, err_msg=name, equal_nan=True)


class Fixed(np.ndarray):
    """An operand that is known at compile time."""


def fixed(array: Any) -> Fixed:
    """`array` as a compile-time operand of `Nodes.add`."""
    return np.asarray(array).view(Fixed)


@dataclass
class Nodes:
    """A model of independent nodes (or chains, by naming an earlier output as operand)."""

    opset: int = 21
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def add(self, op: str, *operands: np.ndarray | str | None, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; arrays become inputs, `fixed` ones initializers. Gives the name of its first output."""
        number = len(self.nodes)
        names = [self._operand(operand, f"x{number}_{i}") for i, operand in enumerate(operands)]
        results = [f"{op}{number}_{i}" for i in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op, names, results, **attributes))
        self.outputs = [name for name in self.outputs if name not in names] + results
        return results[0]

    def check(self, target: Target | None = None) -> None:
        """Compare every output that no other node reads with ONNX Runtime."""
        check(self.proto(), self.feeds, target)

    def check_with_reference(self, target: Target | None = None) -> None:
        """Compare with ONNX's reference implementation, for what ONNX Runtime lacks."""
        proto = self.proto()
        check(proto, self.feeds, target, onnx.reference.ReferenceEvaluator(proto).run(None, self.feeds))

    def proto(self) -> onnx.ModelProto:
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in self.feeds.items()
        ]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = onnx.helper.make_graph(self.nodes, "nodes", inputs, outputs, self.initializers)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def _operand(self, operand: np.ndarray | str | None, name: str) -> str:
        if operand is None or isinstance(operand, str):
            return operand or ""
        if isinstance(operand, Fixed):
            self.initializers.append(onnx.numpy_helper.from_array(np.array(operand), name))
        else:
            self.feeds[name] = operand
        return name
