"""The node tests of the ONNX backend suite, run through `graphopt.onnx_backend`: a table of what passes and what does not.

    python benchmarks/conformance.py [PATTERN ...] [--verbose]

Patterns are regular expressions matched against the names of the tests, without the leading `test_`. The exit code is 1
if any result is wrong or anything crashes; what graphopt refuses is listed with its reason, and is no failure.
"""

from __future__ import annotations

import argparse
import re
import sys
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphopt.errors import GraphoptError

Array = np.ndarray[Any, Any]

STATUSES = ("passed", "refused", "skipped", "wrong", "crashed")
FAILURES = ("wrong", "crashed")


@dataclass(frozen=True)
class Result:
    """What became of one test. `operator` is that of the model's first node."""

    name: str
    operator: str
    status: str
    reason: str = ""


def load_cases(patterns: Sequence[str] = ()) -> list[Any]:
    """The node tests whose names match any of the patterns; all of them without patterns."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return [case for case in cases if not patterns or any(re.match(f"test_{p}", case.name) for p in patterns)]


def run_case(case: Any) -> Result:
    """Compile and run one test, and compare every output."""
    model = case.model
    operator = model.graph.node[0].op_type if model.graph.node else ""
    for inputs, outputs in case.data_sets:
        feeds, expected = _arrays(model.graph.input, inputs), _arrays(model.graph.output, outputs)
        if feeds is None or expected is None:
            return Result(case.name, operator, "skipped", "its inputs or outputs are not all tensors")
        status, reason = _run(model, feeds, expected, case.rtol, case.atol)
        if status != "passed":
            return Result(case.name, operator, status, reason)
    return Result(case.name, operator, "passed")


def _run(
    model: onnx.ModelProto, feeds: Sequence[Array], expected: Sequence[Array], rtol: float, atol: float
) -> tuple[str, str]:
    from graphopt import onnx_backend

    try:
        got = onnx_backend.run_model(model, list(feeds))
    except GraphoptError as error:
        return "refused", " ".join(str(error).split())
    except Exception:
        return "crashed", traceback.format_exc()
    for value, actual, wanted in zip(model.graph.output, got, expected, strict=True):
        difference = _difference(actual, wanted, rtol, atol)
        if difference:
            return "wrong", f"{value.name}: {difference}"
    return "passed", ""


def _arrays(values: Iterable[onnx.ValueInfoProto], data: Iterable[Any]) -> list[Array] | None:
    """The data as arrays of the declared types, or None if some are no tensors."""
    arrays = []
    for value, item in zip(values, data, strict=False):
        if isinstance(item, onnx.TensorProto):
            item = onnx.numpy_helper.to_array(item)
        if not value.type.HasField("tensor_type") or not isinstance(
            item, np.ndarray | np.generic | int | float
        ):
            return None
        arrays.append(_as_declared(np.asarray(item), value.type.tensor_type.elem_type))
    return arrays


def _as_declared(array: Array, element_type: int) -> Array:
    """Types that numpy lacks may come as the integers that hold their bits."""
    declared = ir.DataType(element_type)
    if declared is ir.DataType.BFLOAT16 and array.dtype == np.uint16:
        return array.view(declared.numpy())
    return array


def _difference(actual: Array, wanted: Array, rtol: float, atol: float) -> str:
    if (actual.dtype, actual.shape) != (wanted.dtype, wanted.shape):
        return f"{actual.dtype}{list(actual.shape)} where {wanted.dtype}{list(wanted.shape)} is expected"
    first, second = (x if x.dtype.kind in "biufc" else x.astype(np.float32) for x in (actual, wanted))
    if np.allclose(first, second, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"{actual.reshape(-1)[:6]} where {wanted.reshape(-1)[:6]} is expected"


def render(results: Sequence[Result]) -> str:
    """A line per operator with tests that did not pass, the reasons, and the totals."""
    by_operator: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        by_operator[result.operator][result.status] += 1
    width = max((len(name) for name in by_operator), default=8)
    lines = [f"{'operator':{width}} " + " ".join(f"{status:>8}" for status in STATUSES)]
    for name, counts in sorted(by_operator.items()):
        lines.append(f"{name:{width}} " + _columns(counts))
    lines.append(f"{'all':{width}} " + _columns(Counter(result.status for result in results)))
    return "\n".join([*lines, *_details(results)])


def _columns(counts: Counter[str]) -> str:
    return " ".join(f"{counts[status] or '':>8}" for status in STATUSES)


def _details(results: Sequence[Result]) -> Iterator[str]:
    for status in FAILURES:
        for result in results:
            if result.status == status:
                yield f"{status} {result.name}: {result.reason.strip().splitlines()[-1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", help="regular expressions for names of tests; all by default")
    parser.add_argument(
        "--verbose", action="store_true", help="print every test that does not pass as it runs"
    )
    options = parser.parse_args(arguments)
    results = []
    for case in load_cases(options.patterns):
        results.append(run_case(case))
        if options.verbose and results[-1].status != "passed":
            print(results[-1].status, results[-1].name, results[-1].reason, flush=True)
    print(render(results))
    return int(any(result.status in FAILURES for result in results))


if __name__ == "__main__":
    sys.exit(main())
