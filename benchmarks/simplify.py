"""`optimize` against onnxsim and onnxslim: nodes left, time, file size and equivalence, as a Markdown table.

    python benchmarks/simplify.py [--zoo FOLDER] [--light FOLDER] [--json FILE] [MODEL.onnx ...]

Nodes are counted without Constant nodes, subgraphs included. A result counts as wrong if ONNX Runtime's
answers change, if it brings functions or operators of another domain than the input had, or if it changes the
opset.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from graphopt.accuracy.verify import Verdict, reference, verify
from graphopt.cli.report import markdown, write_text
from graphopt.feeds.random_feeds import random_feeds
from light import DEFAULT_FOLDER, light_models
from simplifiers import SIMPLIFIERS

SCRIPT = Path(__file__).parent / "simplifiers.py"
STANDARD_DOMAINS = ("", "ai.onnx")
# Sizes of free dimensions to try, until one suits the model.
FREE_SIZES = (64, 576, 224)
SEEDS = range(2)
# A file may be this much larger than the smaller of the others.
SIZE_MARGIN = 1.01


@dataclass(frozen=True)
class Result:
    """What a tool made of a model.

    ``problem`` says why the result is missing or wrong, ``unverified`` why nobody can tell; both are empty if
    all is well.
    """

    nodes: int = 0
    milliseconds: float = 0.0
    bytes: int = 0
    problem: str = ""
    unverified: str = ""


def main() -> None:
    """Print the table, and on how many models we do at least as well as the better of the others."""
    arguments = parse()
    models = arguments.models or [*zoo_models(arguments.zoo), *light_models(arguments.light).values()]
    results: dict[str, dict[str, Result]] = {}
    for path in models:
        results[path.stem] = {tool: judge(tool, path, arguments) for tool in SIMPLIFIERS}
        print(row(path.stem, count_nodes(load(path).graph), results[path.stem]), file=sys.stderr)
    print(table(models, results))
    print(summary(results))
    if arguments.json:
        content = {name: {tool: asdict(one) for tool, one in line.items()} for name, line in results.items()}
        write_text(json.dumps(content, indent=2) + "\n", arguments.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, help="only these models")
    parser.add_argument(
        "--zoo", type=Path, default=os.environ.get("GRAPHOPT_ZOO"), help="folder of real models"
    )
    parser.add_argument("--light", type=Path, default=DEFAULT_FOLDER, help="folder of the light models")
    parser.add_argument("--json", help="also write the results here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one tool on one model")
    return parser.parse_args()


def zoo_models(zoo: Path | None) -> list[Path]:
    return sorted((zoo / "models").glob("*.onnx")) if zoo is not None else []


def judge(tool: str, path: Path, arguments: argparse.Namespace) -> Result:
    """Run a tool in its own process and check what it made."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "simplified.onnx"
        command = [sys.executable, str(SCRIPT), tool, str(path), str(output), str(arguments.repeats)]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=arguments.timeout
            )
        except subprocess.TimeoutExpired:
            return Result(problem=f"no result in {arguments.timeout:g} s")
        if done.returncode != 0:
            return Result(problem=f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:80]}")
        times = json.loads(done.stdout.splitlines()[-1])
        return check(path, output, statistics.median(times))


def check(before: Path, after: Path, milliseconds: float) -> Result:
    """Count what is left and compare the results of the two models."""
    simplified = load(after)
    problem, unverified = foreign(load(before), simplified), ""
    if not problem:
        verdict = equivalence(before, after)
        text = str(verdict).splitlines()[0][:100]
        problem, unverified = ("" if verdict.passed else text, "") if verdict.verified else ("", text)
    return Result(count_nodes(simplified.graph), milliseconds, after.stat().st_size, problem, unverified)


def load(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def count_nodes(graph: onnx.GraphProto) -> int:
    return sum(node.op_type != "Constant" for node in nodes(graph))


def foreign(before: onnx.ModelProto, after: onnx.ModelProto) -> str:
    """What a simplified model has that not every ONNX runtime would take, or an empty string."""
    domains = {node.domain for node in nodes(after.graph)} - {node.domain for node in nodes(before.graph)}
    if domains.difference(STANDARD_DOMAINS):
        return f"operators of {', '.join(sorted(domains))}"
    if len(after.functions) > len(before.functions):
        return "functions"
    return "" if opset(before) == opset(after) else f"opset {opset(after)} instead of {opset(before)}"


def opset(model: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)


def equivalence(before: Path, after: Path) -> Verdict:
    """Compare two models on random inputs; free dimensions take the first size that suits the model."""
    model = ir.load(before)
    verdict = Verdict(not_verified="no size was tried")
    for size in FREE_SIZES:
        feeds = [random_feeds(model, seed, size=size) for seed in SEEDS]
        verdict = verify(before, lambda feed: reference(after)(feed), feeds)
        if verdict.verified:
            break
    return verdict


def row(name: str, before: int, results: Mapping[str, Result]) -> str:
    return f"{name} ({before} nodes): " + ", ".join(
        f"{tool} {one.nodes} in {one.milliseconds:.0f} ms {one.problem or one.unverified}".strip()
        for tool, one in results.items()
    )


def table(models: list[Path], results: Mapping[str, Mapping[str, Result]]) -> str:
    """One line a model: nodes before; nodes, milliseconds and megabytes of each tool; what went wrong."""
    headings = ["model", "nodes", *SIMPLIFIERS]
    headings += [f"{tool} {unit}" for unit in ("ms", "MB") for tool in SIMPLIFIERS] + ["remarks"]
    lines = []
    for path in models:
        line = results[path.stem].values()
        problems = [
            f"{tool}: {one.problem or one.unverified}"
            for tool, one in results[path.stem].items()
            if one.problem or one.unverified
        ]
        lines.append(
            [
                path.stem,
                str(count_nodes(load(path).graph)),
                *(str(one.nodes) for one in line),
                *(f"{one.milliseconds:.0f}" for one in line),
                *(f"{one.bytes / 1e6:.2f}" for one in line),
                "; ".join(problems),
            ]
        )
    return markdown(headings, lines)


def summary(results: Mapping[str, Mapping[str, Result]]) -> str:
    """The claims, counted over the models; a wrong result of ours loses, one of theirs is left out."""
    count = len(results)
    lines = results.values()
    few = sum(wins(line, lambda one: one.nodes, 1.0) for line in lines)
    small = sum(wins(line, lambda one: one.bytes, SIZE_MARGIN) for line in lines)
    fast = sum(line["graphopt"].milliseconds < line["onnxslim"].milliseconds for line in lines)
    wrong = [name for name, line in results.items() if line["graphopt"].problem]
    unverified = [name for name, line in results.items() if line["graphopt"].unverified]
    return "\n".join(
        [
            f"\nNodes: fewer than or equal to the better of the two on {few} of {count} models.",
            f"Size: at most {SIZE_MARGIN - 1:.0%} more than the smaller of the two on {small} of {count}.",
            f"Time: less than onnxslim on {fast} of {count}.",
            f"Wrong: {', '.join(wrong) or 'none'}. Not verified: {', '.join(unverified) or 'none'}.",
        ]
    )


def wins(line: Mapping[str, Result], measure: Callable[[Result], int], margin: float) -> bool:
    """Whether our result is right and at most ``margin`` times the best of the others that are."""
    ours = line["graphopt"]
    others = [measure(one) for tool, one in line.items() if tool != "graphopt" and not one.problem]
    return not ours.problem and measure(ours) <= margin * min(others, default=measure(ours))


if __name__ == "__main__":
    main()
