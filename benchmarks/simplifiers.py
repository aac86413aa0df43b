"""One simplifier on one model, in a process of its own: python benchmarks/simplifiers.py TOOL MODEL OUTPUT
REPEATS

Times the step from a loaded ModelProto to a simplified one, verification off, and prints the milliseconds of
each repeat as the last line of standard output.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx

Simplifier = Callable[[onnx.ModelProto], onnx.ModelProto]


def graphopt_o2() -> Simplifier:
    import onnx_ir as ir

    from graphopt.model import normalise, proto
    from graphopt.passes import preset
    from graphopt.rewriting.pipeline import run

    def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
        inner = ir.from_proto(model)
        normalise(inner)
        run(inner, preset("O2"))
        return proto(inner)

    return simplify


def onnxsim() -> Simplifier:
    import onnxsim

    return lambda model: onnxsim.simplify(model, check_n=0)[0]


def onnxslim() -> Simplifier:
    import onnxslim

    return lambda model: onnxslim.slim(model, model_check=False)


# Name -> what imports the tool and gives its simplifier.
SIMPLIFIERS: dict[str, Callable[[], Simplifier]] = {
    "graphopt": graphopt_o2,
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
}


def main(tool: str, model: Path, output: Path, repeats: int) -> None:
    """Simplify a fresh copy ``repeats`` times and write the last result."""
    simplify = SIMPLIFIERS[tool]()
    content = model.read_bytes()
    times = []
    for _ in range(repeats):
        loaded = onnx.load_from_string(content)
        started = time.perf_counter()
        result = simplify(loaded)
        times.append((time.perf_counter() - started) * 1e3)
    output.write_bytes(result.SerializeToString())
    print("\n" + json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
