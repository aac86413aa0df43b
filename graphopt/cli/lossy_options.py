"""Options of every command that gives up accuracy: the data to learn from, and what tells how much was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from graphopt.cli import parameters
from graphopt.cli.options import Command, Decorator

if TYPE_CHECKING:
    from graphopt.cli.report import Table
    from graphopt.compression.recovery import Recovery
    from graphopt.compression.techniques import Gain

PREPROCESS = click.option(
    "--preprocess", metavar="NAME", help="For images: raw, unit, signed, centred, imagenet or cifar."
)

LEARNING: Sequence[Decorator] = (
    click.option(
        "--calib",
        type=parameters.DATA,
        metavar="DATA",
        help="Data to learn from: an .npz, a folder of .npy, or of images.",
    ),
    PREPROCESS,
    click.option(
        "--samples", type=click.IntRange(1), default=300, show_default=True, help="Most samples used."
    ),
    click.option(
        "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that look at them."
    ),
)

RECOVERING: Sequence[Decorator] = (
    click.option(
        "--recover",
        type=float,
        metavar="MINUTES",
        help="Let the result learn from MODEL so long, on all of --calib: a last step. Needs torch.",
    ),
)

EXCLUDING: Sequence[Decorator] = (
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Leave float what has this name or operator."
    ),
)

JUDGING: Sequence[Decorator] = (
    click.option(
        "--eval",
        type=parameters.DATA,
        metavar="DATA",
        help="Other data, with labels perhaps, to measure the cost on.",
    ),
    click.option(
        "--metric",
        metavar="NAME",
        help="Measure this too: agreement, cosine, top1, top5, or module:function(outputs, inputs, labels).",
    ),
)

SHARED: Sequence[Decorator] = (*LEARNING, *EXCLUDING, *JUDGING)


def max_drop(explanation: str) -> Decorator:
    """`--max-drop`."""
    return click.option("--max-drop", type=click.FloatRange(0), metavar="X", help=explanation)


def with_options(command: Command, options: Sequence[Decorator]) -> Command:
    """A command with options, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def listed(*options: Decorator) -> Decorator:
    """A decorator that gives a command these options, in this order."""
    return lambda command: with_options(command, options)


def given(options: Sequence[Decorator]) -> list[str]:
    """Those of some options that stand on the command line that is being run."""
    context = click.get_current_context()
    carrier: click.Command = click.command()(with_options(lambda: None, options))
    names = {option.name for option in carrier.params}
    return [
        option.opts[0]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def shared_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that `quantizing.quantize` and `clustering.cluster` both take."""
    names = ("calib", "preprocess", "samples", "workers", "exclude", "metric")
    return {**{name: chosen[name] for name in names}, "evaluate_on": chosen["eval"]}


def techniques(text: str) -> tuple[str, ...]:
    """Those of a list with commas; `none` is none."""
    return () if text == "none" else tuple(part.strip() for part in text.split(","))


def gain_table(gains: Sequence[Gain]) -> Table:
    """What each technique gained."""
    from graphopt.cli import report

    rows = [
        [gain.technique, f"{gain.before:.2f}", f"{gain.after:.2f}", "yes" if gain.kept else "no"]
        for gain in gains
    ]
    return report.table(["technique", "SQNR dB before", "after", "kept"], rows)


def recovery_tables(recovery: Recovery | None) -> list[Table]:
    """What learning won back, if there was a last step of it."""
    if recovery is None:
        return []
    from graphopt.cli import report

    rounds, best = recovery.learning.learned.rounds, recovery.learning.learned.best
    rows = [
        ["before", f"{rounds[0].held_out:.4g}", str(recovery.before), "no" if recovery.kept else "yes"],
        ["recovered", f"{rounds[best].held_out:.4g}", str(recovery.after), "yes" if recovery.kept else "no"],
    ]
    return [report.table(["step", "held-out loss", "next to the original", "kept"], rows)]
