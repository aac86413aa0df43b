"""How students learn from the command line: the command, its options, and the table of its rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli import lossy_options, options, parameters
from graphopt.cli.commands import example
from graphopt.cli.printing import announce, progress_display, publish
from graphopt.errors import GraphoptError

if TYPE_CHECKING:
    from graphopt.compression.distilling import Distillation

Command = Callable[..., Any]

DEFAULT_MINUTES = 10.0

SHOWN_ROUNDS = 12

_OPTIONS: Sequence[Callable[[Command], Command]] = (
    click.option(
        "--teacher",
        type=parameters.ONNX_MODEL,
        metavar="MODEL",
        help="The model to learn from; without one there are only labels.",
    ),
    click.option(
        "--data",
        type=parameters.DATA,
        required=True,
        metavar="DATA",
        help="Samples: an .npz, a folder of .npy, or of images. Labels are not needed.",
    ),
    lossy_options.PREPROCESS,
    click.option("--labels", is_flag=True, help="Learn from the labels in the data as well."),
    click.option(
        "--loss",
        default="auto",
        show_default=True,
        help="What the first output says: classes, tokens, embedding, regression, or auto.",
    ),
    click.option(
        "--temperature", type=float, default=2.0, show_default=True, help="Softens classes and tokens."
    ),
    click.option("--alpha", type=float, default=0.5, show_default=True, help="With --labels: their share."),
    click.option(
        "--features",
        metavar="auto|NAME=NAME,...",
        help="Values of the student that should be like values of the teacher; auto: some of the same name.",
    ),
    click.option("--epochs", type=int, metavar="N", help="How often to go through the data."),
    click.option(
        "--minutes", type=float, metavar="M", help=f"How long to learn; {DEFAULT_MINUTES:g} by default."
    ),
    click.option("--batch", type=int, default=64, show_default=True, help="Samples of a step."),
    click.option(
        "--rate", type=float, help="Highest learning rate, of AdamW; 3e-4, or 1e-3 without a teacher."
    ),
    click.option("--decay", type=float, default=0.0, show_default=True, help="Weight decay."),
    click.option(
        "--stay", type=float, default=0.0, show_default=True, help="Like decay, but to where weights started."
    ),
    click.option(
        "--augment",
        default="auto",
        show_default=True,
        help="What is done to images: auto, none, or some of shift,flip,mix.",
    ),
    click.option(
        "--freeze-statistics", is_flag=True, help="Batch normalisations keep their running statistics."
    ),
    click.option(
        "--blocks",
        type=float,
        default=0.0,
        show_default=True,
        metavar="SHARE",
        help="Of the time, in which blocks of the same name learn one after the other: quicker, in less memory.",
    ),
    click.option("--patience", type=int, metavar="N", help="End after N rounds without gain."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option(
        "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that make batches."
    ),
    *lossy_options.JUDGING,
    click.option(
        "--checkpoint",
        type=parameters.OUTPUT,
        help="Where learning is kept while it lasts, and goes on from; OUTPUT.checkpoint by default.",
    ),
)


@example(
    "graphopt distill small.onnx --teacher large.onnx --data images/ --preprocess imagenet -o better.onnx"
)
@click.command()
@click.argument("student", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The student with new weights.")
@lossy_options.listed(*_OPTIONS)
@options.json_file
def distill(student: Path, output: Path, json_file: str | None, **chosen: Any) -> None:
    """Train the weights of STUDENT.onnx until it computes what a teacher does.

    Pruned shapes, zeros of weights, clusters and integers stay, so that it compiles to the same kernels. What it gained is
    measured on --eval, or else on samples that were held out. An interrupted run goes on where it was.
    """
    settings = _settings(chosen, output)
    with progress_display(json_file) as progress:
        from graphopt.compression import distilling

        done = distilling.distill(student, output=output, progress=progress, **settings)
    if done.learned.first:
        announce(done.warnings)
        publish(json_file, done.to_json(), _table(done), line=f"{output}: {_summary(done)}")


COMMANDS: Sequence[click.Command] = (distill,)


def _settings(chosen: dict[str, Any], output: Path) -> dict[str, Any]:
    """Keyword arguments of `distilling.distill`. Raises GraphoptError for text that says nothing."""
    names = (
        "teacher", "data", "preprocess", "labels", "temperature", "alpha", "epochs", "batch", "decay", "stay",
        "freeze_statistics", "blocks", "patience", "seed", "workers", "metric",
    )  # fmt: skip
    unlimited = chosen["epochs"] is None and chosen["minutes"] is None
    return {
        **{name: chosen[name] for name in names},
        **({} if chosen["rate"] is None else {"rate": chosen["rate"]}),
        "kind": chosen["loss"],
        "minutes": DEFAULT_MINUTES if unlimited else chosen["minutes"],
        "features": _features(chosen["features"]),
        "augment": _augmentation(chosen["augment"]),
        "evaluate_on": chosen["eval"],
        "checkpoint": chosen["checkpoint"] or output.with_name(f"{output.name}.checkpoint"),
    }


def _features(text: str | None) -> dict[str, str] | None:
    if text == "auto":
        return None
    pairs = {}
    for part in text.split(",") if text else ():
        mine, separator, other = part.partition("=")
        if not separator or not mine or not other:
            raise GraphoptError(f"--features {text!r}: write auto, or STUDENT=TEACHER,...")
        pairs[mine] = other
    return pairs


def _augmentation(text: str) -> tuple[str, ...] | None:
    named = {"auto": None, "none": ()}
    return named[text] if text in named else tuple(part.strip() for part in text.split(","))


def _summary(done: Distillation) -> str:
    """One line."""
    learned = done.learned
    last = learned.rounds[-1]
    agreed = ""
    if done.before is not None and done.after is not None:
        agreed = f"; before: {done.before}; after: {done.after}"
    return f"{learned.epochs:.1f} epochs in {last.seconds:.0f} s{agreed}"


def _table(done: Distillation) -> Any:
    """Some of the rounds, the best among them."""
    from graphopt.cli import report

    rounds, best = done.learned.rounds, done.learned.best
    apart = -(-len(rounds) // SHOWN_ROUNDS)
    shown = sorted({*range(0, len(rounds), apart), len(rounds) - 1, best})
    rows = [
        [
            str(rounds[number].step),
            f"{rounds[number].seconds:.0f}",
            f"{rounds[number].loss:.4g}",
            f"{rounds[number].held_out:.4g}",
            "" if rounds[number].agreement is None else f"{100 * rounds[number].agreement:.2f} %",
            "yes" if number == best else "",
        ]
        for number in shown
    ]
    return report.table(["step", "s", "loss", "held-out loss", "agreement", "kept"], rows)
