"""Commands that make models smaller, ONNX to ONNX, and what `compile` takes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli import lossy_options, options, parameters
from graphopt.cli.commands import example
from graphopt.cli.lossy_steps import Progress, Step
from graphopt.cli.options import Command, Decorator
from graphopt.cli.printing import announce, progress_display, publish
from graphopt.errors import GraphoptError

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.cli.report import Table
    from graphopt.compression.clustering import Clustering

DEFAULT_TECHNIQUES = "reconstruct,sensitivity,correct"

_SIZES: Sequence[Decorator] = (
    click.option("--clusters", type=int, metavar="N", help="Values of each tensor, 2 to 256. Default: 32."),
    click.option(
        "--sqnr",
        "sqnr_db",
        type=click.FloatRange(0),
        metavar="DB",
        help="As few values for each tensor as have this ratio of its power to its error.",
    ),
    lossy_options.max_drop("The least power of two of values with which the metric loses no more."),
    click.option(
        "--group", type=int, metavar="N", help="Output channels that share a codebook. Default: all."
    ),
    click.option(
        "--entropy",
        type=float,
        default=0.0,
        show_default=True,
        help="Error, in units of that of k-means, that a bit of a code saved may add; 1 is much.",
    ),
    click.option(
        "--techniques",
        default=DEFAULT_TECHNIQUES,
        show_default=True,
        help="What is tried with --calib, and kept where it gains: these, or none.",
    ),
)

_CLUSTER = click.option(
    "--cluster",
    "clusters",
    type=int,
    metavar="N",
    help="Cluster the weights first, as `graphopt cluster` does.",
)


@example("graphopt cluster model.onnx --clusters 32 --calib images/ --preprocess imagenet -o small.onnx")
@click.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The clustered model.")
@lossy_options.listed(*_SIZES, *lossy_options.SHARED, *lossy_options.RECOVERING)
@options.json_file
def cluster(model: Path, output: Path, json_file: str | None, **chosen: Any) -> None:
    """Let the weights of each tensor of MODEL.onnx share a few values, so that the file packs well.

    The result is standard ONNX that any runtime reads: codes, and codebooks that they are looked up in. What it cost is measured on
    --eval, or else on --calib.
    """
    names = ("clusters", "sqnr_db", "max_drop", "group", "entropy")
    settings = {
        **lossy_options.shared_settings(chosen),
        **{name: chosen[name] for name in names},
        "techniques": lossy_options.techniques(chosen["techniques"]),
        "recover_minutes": chosen["recover"],
    }
    with progress_display(json_file) as progress:
        from graphopt.compression import clustering

        done = clustering.cluster(model, output=output, progress=progress, **settings)
    announce(done.warnings)
    publish(json_file, done.to_json(), *tables(done), line=f"{output}: {summary(done)}")


def clustering_option(command: Command) -> Command:
    """`compile --cluster`."""
    return _CLUSTER(command)


def compile_step(chosen: dict[str, Any]) -> Step | None:
    """Clustering in compile, None without --cluster."""
    if chosen["clusters"] is None:
        return None
    settings = {**lossy_options.shared_settings(chosen), "clusters": chosen["clusters"]}

    def run(model: Path | ir.Model, progress: Progress) -> Clustering:
        from graphopt.compression import clustering

        return clustering.cluster(model, progress=progress, **settings)

    return Step("clustered", run, summary, tables)


def summary(done: Clustering) -> str:
    """One line."""
    cost = "not evaluated: no data" if done.evaluation is None else str(done.evaluation)
    return (
        f"{done.weights} weights of {len(done.tensors)} tensors clustered, {done.bits:.2f} bits each; "
        f"{_sizes('', done.before.bytes, done.after.bytes)}, "
        f"{_sizes('zipped ', done.before.deflated, done.after.deflated)}; {cost}"
    )


def _sizes(what: str, before: int, after: int) -> str:
    return f"{what}{before / 1e6:.2f} -> {after / 1e6:.2f} MB ({before / max(after, 1):.2f}x)"


def tables(done: Clustering) -> list[Table]:
    """What each technique gained, the steps of a search, and what was won back."""
    from graphopt.cli import report

    found = [lossy_options.gain_table(done.gains)] if done.gains else []
    if done.trials:
        rows = [[str(trial.clusters), f"{trial.drop:.3f}"] for trial in done.trials]
        found.append(report.table(["clusters", "drop"], rows))
    return [*found, *lossy_options.recovery_tables(done.recovery)]


@example("graphopt compress model.onnx --calib images/ --preprocess imagenet --max-drop 1 -o model.gopt")
@click.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The best artifact.")
@options.targets
@options.dims(several=True)
@options.input_shapes
@options.bind
@click.option(
    "--objective",
    type=click.Choice(("latency", "size")),
    default="latency",
    show_default=True,
    help="What is to be small.",
)
@lossy_options.max_drop("What the metric may lose; agreement by default.")
@click.option(
    "--journal", type=parameters.OUTPUT, help="Where measurements are kept; OUTPUT.search by default."
)
@click.option("--html", type=parameters.OUTPUT, help="Write a page with plots.")
@lossy_options.listed(*lossy_options.LEARNING, *lossy_options.RECOVERING, *lossy_options.JUDGING)
@options.json_file
def compress(
    model: Path,
    output: Path,
    target: str,
    objective: str,
    journal: Path | None,
    html: Path | None,
    json_file: str | None,
    **chosen: Any,
) -> None:
    """Prune, thin out, quantise and cluster MODEL.onnx as far as a budget allows, and compile what is fastest or smallest.

    Combinations are tried, and everything is measured: what the metric loses on --eval, or else on --calib, and what each artifact
    takes. A search that was interrupted goes on where it was.
    """
    if chosen["calib"] is None or chosen["max_drop"] is None:
        raise GraphoptError("give --calib DATA to learn from, and what may be lost as --max-drop")
    settings = lossy_options.shared_settings({"exclude": (), **chosen})
    del settings["exclude"]
    with progress_display(json_file) as progress:
        from graphopt.cli import report
        from graphopt.compression import compressing, pareto

        done = compressing.compress(
            model,
            output=output,
            target=target,
            objective=objective,
            max_drop=chosen["max_drop"],
            recover_minutes=chosen["recover"],
            journal=journal or output.with_name(f"{output.name}.search"),
            progress=progress,
            **settings,
            **options.shape_settings(chosen),
        )
    rows = pareto.rows(done)
    line = (
        f"{output}: {done.chosen.plan}: {(done.chosen.bytes or 0) / 1e6:.3f} MB, {done.chosen.latency:.2f} of the latency before; "
        f"{done.metric} {done.before:.3f} -> {done.before - done.chosen.drop:.3f}"
    )
    if html is not None:
        page = report.render(
            "compression.html",
            name=model.name,
            summary=line,
            metric=done.metric,
            plots=pareto.plots(done),
            headings=pareto.COLUMNS,
            rows=rows,
            width=pareto.WIDTH,
            height=pareto.HEIGHT,
            margin=pareto.MARGIN,
        )
        report.write_text(page, str(html))
    announce(done.warnings)
    found = [report.table(list(pareto.COLUMNS), rows), *lossy_options.recovery_tables(done.recovery)]
    publish(json_file, done.to_json(), *found, line=line)


COMMANDS: Sequence[click.Command] = (cluster, compress)
