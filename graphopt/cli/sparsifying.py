"""`graphopt sparsify`: the command, its options, and the table that shows where the zeros are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli import lossy_options, parameters
from graphopt.cli.commands import example
from graphopt.cli.options import json_file
from graphopt.cli.printing import announce, progress_display, publish

if TYPE_CHECKING:
    from graphopt.cli.report import Table
    from graphopt.compression.sparsifying import Sparsification

CRITERIA = ("magnitude", "wanda", "correlation", "entropy")


@example("graphopt sparsify model.onnx --ratio 0.5 --calib images/ --preprocess imagenet -o sparse.onnx")
@click.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The model with zeros.")
@click.option("--ratio", type=float, metavar="X", help="The share of weights that become zero, such as 0.5.")
@click.option(
    "--pattern",
    metavar="N:M|Vx1",
    help="2:4 keeps two of every four inputs; 16x1, with --ratio, zeroes 16 outputs of an input at once.",
)
@click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    default="magnitude",
    show_default=True,
    help="Which weights become zero; all but magnitude need --calib.",
)
@click.option("--global", "across", is_flag=True, help="One ratio for all layers together, not for each.")
@click.option("--no-compensate", is_flag=True, help="Let the weights that are left stay as they are.")
@lossy_options.listed(*lossy_options.SHARED, *lossy_options.RECOVERING)
@json_file
def sparsify(model: Path, output: Path, json_file: str | None, **chosen: Any) -> None:
    """Give the weights of MODEL.onnx zeros, as standard ONNX.

    With --calib the weights that are left make up for the others. What it cost is measured on --eval, or else on that data itself.
    """
    names = ("ratio", "pattern", "criterion", "across")
    settings = {
        **lossy_options.shared_settings(chosen),
        **{name: chosen[name] for name in names},
        "compensate": not chosen["no_compensate"],
        "recover_minutes": chosen["recover"],
    }
    with progress_display(json_file) as progress:
        from graphopt.compression import sparsifying

        done = sparsifying.sparsify(model, output=output, progress=progress, **settings)
    announce(done.warnings)
    cost = "not evaluated: no data" if done.evaluation is None else str(done.evaluation)
    share = f"{100 * done.zeros / done.weights:.1f} % of {done.weights} weights in {len(done.layers)} layers are zero"
    tables = [table(done), *lossy_options.recovery_tables(done.recovery)]
    publish(json_file, done.to_json(), *tables, line=f"{output}: {share}; {cost}")


def table(done: Sparsification) -> Table:
    """A row a layer."""
    from graphopt.cli import report

    rows = [
        [layer.name, layer.operator, str(layer.weights), f"{100 * layer.share:.1f} %"]
        for layer in done.layers
    ]
    return report.table(["layer", "operator", "weights", "zeros"], rows)


COMMANDS = (sparsify,)
