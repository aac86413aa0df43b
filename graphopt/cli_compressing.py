"""Commands that make models smaller, ONNX to ONNX, and what `compile` takes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt import lossy_options, options, parameters
from graphopt.commands import example
from graphopt.lossy_steps import Progress, Step
from graphopt.options import Command, Decorator
from graphopt.printing import announce, progress_display, publish

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.clustering import Clustering
    from graphopt.report import Table

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
@lossy_options.listed(*_SIZES, *lossy_options.SHARED)
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
    }
    with progress_display(json_file) as progress:
        from graphopt import clustering

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
        from graphopt import clustering

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
    """What each technique gained, and the steps of a search."""
    from graphopt import report

    found = [lossy_options.gain_table(done.gains)] if done.gains else []
    if done.trials:
        rows = [[str(trial.clusters), f"{trial.drop:.3f}"] for trial in done.trials]
        found.append(report.table(["clusters", "drop"], rows))
    return found


COMMANDS: Sequence[click.Command] = (cluster,)
