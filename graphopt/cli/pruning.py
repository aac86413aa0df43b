"""How models lose channels from the command line: the options, and the tables that show what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
    from graphopt.compression.pruning import PruningResult, Target
    from graphopt.compression.shortening import Shortening
    from graphopt.passes.prune.groups import Group, Whole

IMPORTANCES = ("correlation", "entropy", "l1", "l2", "median", "random", "taylor", "variance")

ROUND_TO = 8

_TARGETS: Sequence[Decorator] = (
    click.option("--ratio", type=float, metavar="R", help="Share of the channels of each group that goes."),
    click.option("--macs", type=float, metavar="S", help="Share of the multiply-adds that is left."),
    click.option("--params", type=float, metavar="S", help="Share of the parameters that is left."),
    click.option("--size", type=float, metavar="S", help="Share of the bytes of weights that is left."),
    click.option(
        "--latency",
        type=float,
        metavar="S",
        help="Share of the latency that is left: artifacts are measured on this machine, next to MODEL's.",
    ),
    click.option(
        "--layers",
        type=int,
        metavar="N",
        help="Whole layers and residual branches that go, instead of channels. Needs --calib.",
    ),
    click.option(
        "--share",
        type=float,
        metavar="T",
        help="Instead, merge channels that are multiples of others but for T of their size: by --calib, or by weights.",
    ),
)

_COMPETING: Sequence[Decorator] = (
    click.option(
        "--global",
        "compete",
        is_flag=True,
        help="Groups compete: channels go where they are worth least for what they cost.",
    ),
    click.option(
        "--latency-aware",
        is_flag=True,
        help="As --global, by what compiled kernels gain: widths that leave vectors half empty gain nothing.",
    ),
    options.dims(several=False),
    click.option(
        "--importance",
        type=click.Choice(IMPORTANCES),
        help="What a channel is worth: correlation with --calib, l2 without. taylor needs torch.",
    ),
    click.option(
        "--round-to",
        type=int,
        default=ROUND_TO,
        show_default=True,
        metavar="N",
        help="Widths become multiples of N, where they are wide enough: kernels work on vectors.",
    ),
    click.option(
        "--steps",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="Reach the target in so many steps, each of which is made up for.",
    ),
)

_PROTECT = click.option(
    "--protect",
    multiple=True,
    metavar="PATTERN",
    help="Leave whole what has this name or operator.",
)

_FITTING: Sequence[Decorator] = (
    click.option(
        "--correct/--no-correct",
        default=True,
        show_default=True,
        help="Let the layers that are left make up for what is gone, by least squares on --calib.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn."),
)

_LOOKING: Sequence[Decorator] = (
    click.option("--groups", "only_groups", is_flag=True, help="Only show which channels go together."),
    click.option(
        "--picture", type=parameters.OUTPUT, metavar="F.dot", help="Groups as a graph for Graphviz."
    ),
)


@example("graphopt prune model.onnx --macs 0.7 --calib images/ --preprocess imagenet -o smaller.onnx")
@click.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, help="The smaller model.")
@lossy_options.listed(
    *_TARGETS,
    *_COMPETING,
    _PROTECT,
    *_FITTING,
    *_LOOKING,
    *lossy_options.LEARNING,
    *lossy_options.RECOVERING,
    *lossy_options.JUDGING,
)
@options.json_file
def prune(
    model: Path,
    output: Path | None,
    json_file: str | None,
    only_groups: bool,
    picture: Path | None,
    **chosen: Any,
) -> None:
    """Remove channels, attention heads and cells of MODEL.onnx that matter least, or whole layers.

    The result is a smaller dense model in standard ONNX; its inputs and outputs keep their shapes. What it cost is measured on --eval,
    or else on --calib.
    """
    if only_groups:
        _show_groups(model, tuple(chosen["protect"]), picture, json_file)
        return
    if output is None:
        raise GraphoptError("name the smaller model with -o, or ask for --groups")
    target = _chosen_target(chosen)
    with progress_display(json_file) as progress:
        done = _WAYS[target](model, output, chosen, progress)
        if picture is not None:
            from graphopt.compression import pruning

            _draw(pruning.groups(model, tuple(chosen["protect"]))[0], picture)
    announce(done.warnings)
    publish(json_file, done.to_json(), *tables(done), line=f"{output}: {summary(done)}")


def _pruned(
    model: Path, output: Path, chosen: dict[str, Any], progress: Progress, target: str
) -> PruningResult:
    from graphopt.compression import pruning

    number = chosen[target]
    wanted = _channels(number) if target == "ratio" else pruning.Target(target, number)
    return pruning.prune(model, wanted, output=output, progress=progress, **_settings(chosen))


def _shortened(model: Path, output: Path, chosen: dict[str, Any], progress: Progress) -> Shortening:
    _require_unused("layers", *_COMPETING)
    from graphopt.compression import shortening

    return shortening.shorten(
        model, chosen["layers"], output=output, progress=progress, **_shared_settings(chosen)
    )


def _merged(model: Path, output: Path, chosen: dict[str, Any], progress: Progress) -> PruningResult:
    _require_unused("share", *_COMPETING, *_FITTING)
    from graphopt.compression import merging

    settings = _shared_settings(chosen)
    del settings["correct"], settings["seed"]
    return merging.merge(model, chosen["share"], output=output, progress=progress, **settings)


def _require_unused(target: str, *unsuited: Decorator) -> None:
    """Raises GraphoptError where options were given that a target has no use for."""
    if given := lossy_options.given(unsuited):
        raise GraphoptError(f"{', '.join(given)}: not with --{target}, by which no channels are ranked")


_WAYS: Mapping[str, Callable[[Path, Path, dict[str, Any], Progress], PruningResult | Shortening]] = {
    **{name: partial(_pruned, target=name) for name in ("ratio", "macs", "params", "size", "latency")},
    "layers": _shortened,
    "share": _merged,
}
"""What each option that says how much does."""

TARGETS = tuple(_WAYS)

_PRUNE = click.option(
    "--prune",
    "pruned_ratio",
    type=float,
    metavar="R",
    help="Remove this share of channels first, as `graphopt prune --ratio` does.",
)


def pruning_option(command: Command) -> Command:
    """`compile --prune`."""
    return _PRUNE(command)


def compile_step(chosen: dict[str, Any]) -> Step | None:
    """Pruning in compile, None without --prune. Raises GraphoptError for a ratio that is none."""
    ratio = chosen["pruned_ratio"]
    if ratio is None:
        return None
    shared = lossy_options.shared_settings(chosen)
    target, protect = _channels(ratio), tuple(shared.pop("exclude"))

    def run(model: Path | ir.Model, progress: Progress) -> PruningResult:
        from graphopt.compression import pruning

        return pruning.prune(model, target, progress=progress, protect=protect, round_to=ROUND_TO, **shared)

    return Step("pruned", run, summary, tables)


def _settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `pruning.prune`."""
    return {
        **_shared_settings(chosen),
        **{name: chosen[name] for name in ("importance", "round_to", "steps")},
        "schedule": "latency" if chosen["latency_aware"] else "global" if chosen["compete"] else "uniform",
        "sizes": options.sizes(chosen["dims"]),
    }


def _shared_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Those that `shortening.shorten` takes as well."""
    shared = lossy_options.shared_settings({"exclude": (), **chosen})
    del shared["exclude"]
    return {
        **shared,
        **{name: chosen[name] for name in ("correct", "seed")},
        "protect": tuple(chosen["protect"]),
        "recover_minutes": chosen["recover"],
    }


def _chosen_target(chosen: dict[str, Any]) -> str:
    """The option that says how much. Raises GraphoptError unless it is exactly one."""
    given = [name for name in TARGETS if chosen[name] is not None]
    if len(given) != 1:
        raise GraphoptError(f"say how much: give one of {', '.join(f'--{name}' for name in TARGETS)}")
    return given[0]


def _channels(ratio: float) -> Target:
    """A share of channels that goes, as one that stays."""
    from graphopt.compression.pruning import Target

    if not 0 <= ratio < 1:
        raise GraphoptError(
            f"a ratio of {ratio:g}: give at least 0 and less than 1, some channels have to stay"
        )
    return Target("channels", 1 - ratio)


def _show_groups(model: Path, protect: tuple[str, ...], picture: Path | None, json_file: str | None) -> None:
    with progress_display(json_file):
        from graphopt.compression import pruning

        groups, whole = pruning.groups(model, protect)
        if picture is not None:
            _draw(groups, picture)
    content = {
        "groups": [
            {"name": group.name, "channels": group.size, "nodes": group.nodes, "inexact": group.inexact}
            for group in groups
        ],
        "whole": [vars(each) for each in whole],
    }
    channels = sum(group.size for group in groups)
    line = f"{channels} channels in {len(groups)} groups may go; {len(whole)} weights stay whole"
    publish(json_file, content, *_group_tables(groups, whole), line=line)


def _draw(groups: Sequence[Group], picture: Path) -> None:
    from graphopt.compression.picture import write_picture

    write_picture(groups, picture)


def _group_tables(groups: Sequence[Group], whole: Sequence[Whole]) -> list[Table]:
    from graphopt.cli import report

    found = []
    if groups:
        rows = [[group.name, str(group.size), _few(group.nodes), group.inexact or ""] for group in groups]
        found.append(report.table(["group", "channels", "nodes that make or read them", "note"], rows))
    if whole:
        rows = [[each.name, str(each.size), each.reason] for each in whole]
        found.append(report.table(["stays whole", "channels", "because"], rows))
    return found


SHOWN = 4
"""Names of nodes of a group in the table."""


def _few(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def summary(done: PruningResult | Shortening) -> str:
    """One line."""
    first, last = done.steps["original"].statistics, list(done.steps.values())[-1]
    left, cost = last.statistics, last.evaluation
    shares = ", ".join(
        f"{100 * after / max(before, 1):.1f} % of {what}"
        for what, before, after in (
            ("multiply-adds", first.macs, left.macs),
            ("parameters", first.params, left.params),
        )
    )
    evaluated = "not evaluated: no data" if cost is None else str(cost)
    return f"{shares} left by {done.importance}; {evaluated}" + (f"; {done.latency}" if done.latency else "")


def tables(done: PruningResult | Shortening) -> list[Table]:
    """What went, and what each step left."""
    from graphopt.cli import report

    rows = [
        [
            name,
            f"{step.statistics.macs / 1e6:.1f}",
            f"{step.statistics.params / 1e6:.3f}",
            f"{step.statistics.bytes / 1e6:.2f}",
            "" if step.evaluation is None else str(step.evaluation),
        ]
        for name, step in done.steps.items()
    ]
    steps = report.table(["step", "M multiply-adds", "M parameters", "MB", "next to the original"], rows)
    return [report.table(*done.gone), steps]


COMMANDS: Sequence[click.Command] = (prune,)
