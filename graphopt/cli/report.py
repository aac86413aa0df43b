"""What people and scripts read: tables for a terminal, Markdown, JSON and one HTML page for ``compare``."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from graphopt.accuracy.comparison import Comparison
from graphopt.files import replacing
from graphopt.model import Statistics
from graphopt.rewriting.pipeline import Report
from graphopt.timing.bench import Benchmark, Measurement
from graphopt.timing.departures import Departures
from graphopt.timing.layers import LayerTimes
from graphopt.timing.roofline import HEIGHT, WIDTH, roofline
from graphopt.timing.streams import Load
from graphopt.timing.tuning import TuningReport

__all__ = [
    "COLUMNS",
    "Table",
    "comparison_html",
    "comparison_rows",
    "comparison_table",
    "departure_table",
    "layer_html",
    "layer_table",
    "load_table",
    "markdown",
    "pass_table",
    "refusal_table",
    "render",
    "show",
    "statistics_table",
    "table",
    "tuning_table",
    "write_json",
    "write_text",
]

PLAIN_WIDTH = 120
"""Columns of a table in a file or a pipe."""

# Heading -> how a measurement is written there.
COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "median ms": lambda one: f"{one.median_ms:.3f}" if one.is_timed else "-",
    "p10": lambda one: f"{one.p10_ms:.3f}" if one.is_timed else "-",
    "p90": lambda one: f"{one.p90_ms:.3f}" if one.is_timed else "-",
    "load ms": lambda one: f"{one.load_ms:.0f}" if one.is_timed else "-",
    "peak MB": lambda one: f"{one.peak_rss_mb:.0f}",
    "precision": lambda one: one.precision,
    "max abs err": lambda one: _error(one.max_abs_err),
    "max rel err": lambda one: _error(one.max_rel_err),
}


LAYER_COLUMNS = ("median ms", "share", "GFLOP/s", "of peak", "MB", "ONNX Runtime ms", "kernel: nodes")


def comparison_rows(benchmark: Benchmark) -> list[list[str]]:
    """A row per backend: its name and every entry of ``COLUMNS``, or its error."""
    return [[name, *_cells(one)] for name, one in benchmark.backends.items()]


def comparison_table(benchmark: Benchmark) -> Table:
    """Backends side by side; one that failed shows why."""
    title = f"{benchmark.model}: {benchmark.threads} thread(s), {benchmark.runs} runs"
    return table(["backend", *COLUMNS], comparison_rows(benchmark), title=title)


def departure_table(found: Departures) -> Table:
    """A row a backend: its first tensor over the tolerance, and the one that differs most."""
    rows = [
        [
            name,
            *(
                [one.error, *[""] * 3]
                if one.error
                else [*_tensor(found, one.first), *_tensor(found, one.largest)]
            ),
        ]
        for name, one in found.backends.items()
    ]
    headings = ["backend", "first over its tolerance", "rel err", "largest difference", "rel err"]
    return table(headings, rows, title=f"{found.model}: tensors next to ONNX Runtime without optimisation")


def _tensor(found: Departures, difference: Comparison | None) -> list[str]:
    if difference is None:
        return ["none", ""]
    name = f"{difference.name} of {found.nodes.get(difference.name, 'the model')}"
    return [name, difference.reason or f"{difference.max_rel_err:.2g}"]


def load_table(load: Load) -> Table:
    """Throughput and latency of concurrent callers."""
    result = load.to_json()
    numbers = (f"{result[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
    row = [str(load.streams), str(load.threads), str(result["calls"]), f"{load.calls_per_s:,.0f}", *numbers]
    return table(
        ["streams", "threads", "calls", "calls/s", "median ms", "p10", "p90"], [row], title=load.model
    )


def layer_table(times: LayerTimes) -> Table:
    """Kernels, the slowest first, with their shares of the whole."""
    return table(LAYER_COLUMNS, layer_rows(times), title=layer_summary(times))


def layer_rows(times: LayerTimes) -> list[list[str]]:
    """A row a kernel, the slowest first."""
    slowest = sorted(times.layers, key=lambda layer: layer.ms, reverse=True)
    return [
        [
            f"{layer.ms:.3f}",
            f"{100 * layer.ms / times.total_ms:.1f} %",
            f"{layer.gflops:.0f}" if layer.macs else "",
            f"{100 * times.of_peak(layer):.0f} %" if layer.macs else "",
            f"{layer.bytes / 1e6:.2f}",
            "" if layer.peer_ms is None else f"{layer.peer_ms:.3f}",
            f"{layer.kernel}: {layer.nodes}",
        ]
        for layer in slowest
    ]


def layer_summary(times: LayerTimes) -> str:
    """The whole in a line."""
    reached, of_roof = times.reached, times.of_roof
    share = ""
    if reached is not None and of_roof is not None:
        share = (
            f"; convolutions and products at {100 * reached:.0f} % of peak, {100 * of_roof:.0f} % of the roof"
        )
    integers = times.peak.integer_gops
    on_bytes = "" if integers is None else f", {integers:.0f} GOP/s on bytes"
    return (
        f"{times.model}: {times.total_ms:.3f} ms in {len(times.layers)} kernels, "
        f"ONNX Runtime {times.peer_total_ms:.3f} ms; {times.threads} thread(s), {times.runs} runs; "
        f"peak {times.peak.gflops:.0f} GFLOP/s{on_bytes}, {times.peak.gbytes_s:.0f} GB/s{share}"
    )


def layer_html(times: LayerTimes) -> str:
    """One self-contained page: the roofline plot above the table."""
    return render(
        "layers.html",
        times=times,
        summary=layer_summary(times),
        plot=roofline(times),
        width=WIDTH,
        height=HEIGHT,
        headings=LAYER_COLUMNS,
        rows=layer_rows(times),
    )


def tuning_table(tuning: TuningReport) -> Table:
    """Workloads, those that take most of the time first, with what tuning gained."""
    rows = [
        [
            task.name,
            str(task.count),
            f"{task.rule_us:.1f}",
            f"{task.best_us:.1f}",
            " ".join(f"{name}={value}" for name, value in task.schedule.items()),
        ]
        for task in tuning.tasks
    ]
    return table(["workload", "times", "rule us", "best us", "schedule"], rows)


def comparison_html(benchmark: Benchmark) -> str:
    """One self-contained page: bars of the medians above the table."""
    timed = {
        name: one.median_ms for name, one in benchmark.backends.items() if not one.error and one.is_timed
    }
    bars = {name: 100 * median / max(timed.values()) for name, median in timed.items()}
    return render(
        "compare.html",
        benchmark=benchmark,
        headings=["backend", *COLUMNS],
        rows=comparison_rows(benchmark),
        bars=bars,
    )


def pass_table(report: Report) -> Table:
    """What each pass did: how often each of its rules was applied, over all rounds."""
    applied: dict[str, Counter[str]] = {}
    for step in report.steps:
        applied[step.name] = applied.get(step.name, Counter()) + step.outcome.applied
    rows = [[name, str(sum(rules.values())), _counts(rules)] for name, rules in applied.items()]
    return table(["pass", "applied", "rules"], rows)


def refusal_table(report: Report) -> Table:
    """Rules that matched but declined, and why."""
    rows = [[rule, str(times), reason] for (rule, reason), times in report.refused.most_common()]
    return table(["rule", "times", "reason"], rows)


def statistics_table(columns: Mapping[str, Statistics]) -> Table:
    """Models side by side: sizes first, then operators."""
    rows = [[name, *(f"{getattr(one, name):,}" for one in columns.values())] for name in _SIZES]
    operators = sorted({op for one in columns.values() for op in one.ops})
    rows += [[op, *(str(one.ops.get(op, 0)) for one in columns.values())] for op in operators]
    return table(["", *columns], rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """A table of text; markup in cells is not interpreted."""
    result = Table(title=title)
    for heading in headings:
        result.add_column(heading, overflow="fold")
    for row in rows:
        result.add_row(*(_plain(cell) for cell in row))
    return result


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def show(*tables: Table) -> None:
    """Print tables to standard output, those without rows left out; 120 columns wide where it is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for each in tables:
        if each.row_count:
            console.print(each)


def write_json(content: Mapping[str, Any], target: str) -> None:
    """Write JSON to a file, whole or not at all, or to standard output for ``-``. Raises OutputError."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    write_text(text, target)


def write_text(text: str, target: str) -> None:
    """Write text to a file, whole or not at all, or to standard output for ``-``. Raises OutputError."""
    if target == "-":
        sys.stdout.write(text)
        return
    with replacing(Path(target)) as file:
        file.write(text.encode())


def render(template: str, **content: Any) -> str:
    """A page of `templates`."""
    from jinja2 import Environment, PackageLoader

    return (
        Environment(loader=PackageLoader("graphopt.cli"), autoescape=True)
        .get_template(template)
        .render(content)
    )


_SIZES = ("nodes", "params", "bytes", "macs")


def _cells(one: Measurement) -> list[str]:
    if one.error:
        return [one.error, *[""] * (len(COLUMNS) - 1)]
    return [write(one) for write in COLUMNS.values()]


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _counts(rules: Counter[str]) -> str:
    return ", ".join(f"{rule} {times}" for rule, times in rules.most_common())


def _plain(cell: str) -> str:
    return cell.replace("[", r"\[")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
