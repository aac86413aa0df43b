"""How models are quantised from the command line: the options, and the tables that show what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from graphopt import parameters
from graphopt.errors import GraphoptError

if TYPE_CHECKING:
    from graphopt.quantizing import Quantization

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

SCHEMES = ("int8", "int8-dynamic", "int8-weights", "int4-weights")
DEFAULT_TECHNIQUES = "smooth,correct,reconstruct"

_OPTIONS: Sequence[Decorator] = (
    click.option(
        "--calib",
        type=parameters.DATA,
        metavar="DATA",
        help="Data for ranges: an .npz, a folder of .npy, or of images. int8 needs it.",
    ),
    click.option(
        "--preprocess", metavar="NAME", help="For images: raw, unit, signed, centred, imagenet or cifar."
    ),
    click.option(
        "--samples", type=click.IntRange(1), default=300, show_default=True, help="Most samples used."
    ),
    click.option(
        "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that look at them."
    ),
    click.option(
        "--method",
        default="mse",
        show_default=True,
        help="What a range covers: mse, min-max, moving-average, percentile or entropy.",
    ),
    click.option(
        "--block",
        type=click.IntRange(1),
        default=32,
        show_default=True,
        help="int4-weights: weights that share a scale.",
    ),
    click.option(
        "--techniques",
        default=DEFAULT_TECHNIQUES,
        show_default=True,
        help="What is tried, and kept where it gains: these, equalise, learn (rounding; needs torch), or none.",
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="PATTERN=SCHEME",
        help="Another scheme, or float, for what has this name or operator.",
    ),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Leave float what has this name or operator."
    ),
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
    click.option(
        "--max-drop",
        type=click.FloatRange(0),
        metavar="X",
        help="Leave as many layers float as it takes for the metric to lose no more.",
    ),
    click.option(
        "--journal",
        type=parameters.OUTPUT,
        help="With --max-drop: where measurements are kept; OUTPUT.search by default.",
    ),
)


def quantization(command: Command) -> Command:
    """All that says how a model is quantised, apart from the scheme."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings(chosen: dict[str, Any], scheme: str, output: Path) -> dict[str, Any]:
    """Keyword arguments of `quantizing.quantize`. Raises GraphoptError for options that do not fit each other."""
    if scheme == "int8" and chosen["calib"] is None:
        raise GraphoptError("int8 needs --calib DATA, from which it learns the ranges of activations")
    if chosen["journal"] is not None and chosen["max_drop"] is None:
        raise GraphoptError("--journal goes with --max-drop")
    names = ("calib", "preprocess", "samples", "workers", "exclude", "metric", "max_drop", "method", "block")
    searching = chosen["max_drop"] is not None
    return {
        **{name: chosen[name] for name in names},
        "scheme": scheme,
        "layers": tuple(_layer(text) for text in chosen["layers"]),
        "techniques": _techniques(chosen["techniques"]),
        "evaluate_on": chosen["eval"],
        "journal": (chosen["journal"] or output.with_name(f"{output.name}.search")) if searching else None,
    }


def compile_settings(chosen: dict[str, Any], output: Path) -> dict[str, Any] | None:
    """Those of compile, None without --quantize. Raises GraphoptError for options that do not fit each other."""
    if chosen["quantize"] is not None:
        if chosen["precision"] != "fp32":
            raise GraphoptError("--quantize and --precision bf16 exclude each other")
        return settings(chosen, chosen["quantize"], output)
    given = [option.opts[0] for option in _given(click.get_current_context())]
    if given:
        raise GraphoptError(f"{', '.join(given)}: only with --quantize")
    return None


def _given(context: click.Context) -> list[click.Parameter]:
    """The options of this module that stand on the command line."""
    carrier: click.Command = click.command()(quantization(lambda: None))
    names = {option.name for option in carrier.params}
    return [
        option
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def _layer(text: str) -> tuple[str, str]:
    pattern, separator, scheme = text.rpartition("=")
    if not separator or not pattern:
        raise GraphoptError(f"--layer {text!r}: write PATTERN=SCHEME")
    return pattern, scheme


def _techniques(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(part.strip() for part in text.split(","))


def summary(done: Quantization) -> str:
    """One line."""
    cost = "not evaluated: no data" if done.evaluation is None else str(done.evaluation)
    return f"{len(done.quantized)} layers quantised; {cost}"


def tables(done: Quantization) -> list[Any]:
    """What each technique gained, and the steps of a search."""
    from graphopt import report

    found = []
    if done.gains:
        rows = [
            [gain.technique, f"{gain.before:.2f}", f"{gain.after:.2f}", "yes" if gain.kept else "no"]
            for gain in done.gains
        ]
        found.append(report.table(["technique", "SQNR dB before", "after", "kept"], rows))
    if done.search is not None:
        rows = [[str(len(trial.floats)), f"{trial.drop:.3f}"] for trial in done.search.trials]
        found.append(report.table(["layers on floats", "drop"], rows))
        worst = [[name, f"{quality:.1f}"] for name, quality in done.search.sqnr_db.items()]
        if worst:
            found.append(
                report.table(
                    ["on floats, worst first", "SQNR dB alone on integers"],
                    worst[: max(len(done.search.floats), 1)],
                )
            )
    return found
