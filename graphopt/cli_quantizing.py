"""How models are quantised from the command line: the options, and the tables that show what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt import lossy_options, parameters
from graphopt.errors import GraphoptError
from graphopt.lossy_steps import Progress, Step
from graphopt.options import Command, Decorator

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.quantizing import Quantization

SCHEMES = ("int8", "int8-dynamic", "int8-weights", "int4-weights")
DEFAULT_TECHNIQUES = "smooth,correct,reconstruct"

_OWN: Sequence[Decorator] = (
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
    lossy_options.max_drop("Leave as many layers float as it takes for the metric to lose no more."),
    click.option(
        "--journal",
        type=parameters.OUTPUT,
        help="With --max-drop: where measurements are kept; OUTPUT.search by default.",
    ),
)


def quantization(command: Command) -> Command:
    """All that says how a model is quantised, apart from the scheme."""
    return lossy_options.with_options(command, (*lossy_options.SHARED, *_OWN))


def settings(chosen: dict[str, Any], scheme: str, output: Path) -> dict[str, Any]:
    """Keyword arguments of `quantizing.quantize`. Raises GraphoptError for options that do not fit each other."""
    if scheme == "int8" and chosen["calib"] is None:
        raise GraphoptError("int8 needs --calib DATA, from which it learns the ranges of activations")
    if chosen["journal"] is not None and chosen["max_drop"] is None:
        raise GraphoptError("--journal goes with --max-drop")
    searching = chosen["max_drop"] is not None
    return {
        **lossy_options.shared_settings(chosen),
        **{name: chosen[name] for name in ("max_drop", "method", "block")},
        "scheme": scheme,
        "layers": tuple(_layer(text) for text in chosen["layers"]),
        "techniques": lossy_options.techniques(chosen["techniques"]),
        "journal": (chosen["journal"] or output.with_name(f"{output.name}.search")) if searching else None,
    }


def compile_step(chosen: dict[str, Any], output: Path) -> Step | None:
    """Quantisation in compile, None without --quantize. Raises GraphoptError for options that do not fit each other."""
    if chosen["quantize"] is None:
        _require_use(chosen)
        return None
    if chosen["precision"] != "fp32":
        raise GraphoptError(f"--quantize and --precision {chosen['precision']} exclude each other")
    arguments = settings(chosen, chosen["quantize"], output)

    def run(model: Path | ir.Model, progress: Progress) -> Quantization:
        from graphopt import quantizing

        return quantizing.quantize(model, progress=progress, **arguments)

    return Step("quantised", run, summary, tables)


def _require_use(chosen: dict[str, Any]) -> None:
    """Raises GraphoptError for options that say nothing without --quantize, or without another step that learns from data."""
    if given := lossy_options.given(_OWN):
        raise GraphoptError(f"{', '.join(given)}: only with --quantize")
    shared = lossy_options.given(lossy_options.SHARED)
    if shared and chosen["clusters"] is None and chosen["pruned_ratio"] is None:
        raise GraphoptError(f"{', '.join(shared)}: only with --quantize, --cluster or --prune")


def _layer(text: str) -> tuple[str, str]:
    pattern, separator, scheme = text.rpartition("=")
    if not separator or not pattern:
        raise GraphoptError(f"--layer {text!r}: write PATTERN=SCHEME")
    return pattern, scheme


def summary(done: Quantization) -> str:
    """One line."""
    cost = "not evaluated: no data" if done.evaluation is None else str(done.evaluation)
    return f"{len(done.quantized)} layers quantised; {cost}"


def tables(done: Quantization) -> list[Any]:
    """What each technique gained, the steps of a search, and what was won back."""
    from graphopt import report

    found = [lossy_options.gain_table(done.gains)] if done.gains else []
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
    return [*found, *lossy_options.recovery_tables(done.recovery)]
