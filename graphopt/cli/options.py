"""Options that several commands share, and how their text becomes the arguments of `graphopt.api`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from graphopt.arrays import Array
from graphopt.cli import parameters
from graphopt.errors import (
    DataError,
    GraphoptError,
    OutputError,
    ShapeError,
    TuningError,
)

SIZE = re.compile("[0-9]{1,10}")
LARGEST_SIZE = 2**31 - 1

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


json_file = click.option(
    "--json",
    "json_file",
    type=parameters.JSON,
    metavar="FILE",
    help="Write the result as JSON; - is standard output.",
)
threads = click.option("--threads", type=click.IntRange(1), help="Default: the CPUs this process may use.")
target = click.option("--target", default="native", show_default=True, help="See `graphopt targets`.")

device = click.option(
    "--device", metavar="NAME|HOST:PORT", help="Run there: a board with the program of `graphopt device`."
)
devices = click.option(
    "--device",
    metavar="NAME|HOST:PORT[,...]",
    help="Measure there: boards with the program of `graphopt device`. Several of one kind share out the candidates.",
)

targets = click.option(
    "--target",
    metavar="NAME[,NAME...]",
    default="native",
    show_default=True,
    help="See `graphopt targets`. An artifact for several runs the best one that its machine can.",
)
input_shapes = click.option(
    "--input-shape",
    "input_shapes",
    multiple=True,
    metavar="NAME=D0,D1,...",
    help="Fix the shape of an input.",
)
bind = click.option(
    "--bind",
    "bind",
    multiple=True,
    metavar="NAME=VALUE",
    help="Make an input a constant: numbers, or an .npy file.",
)


def dims(several: bool) -> Decorator:
    """`--dim`, once a dimension; with `several`, a list of sizes makes shape variants."""
    metavar = "NAME=SIZE[,SIZE...]" if several else "NAME=SIZE"
    more = " Several sizes give one artifact with several variants." if several else ""
    return click.option("--dim", "dims", multiple=True, metavar=metavar, help=f"Fix a free dimension.{more}")


def preset(default: str, explanation: str) -> Decorator:
    """`--preset`."""
    return click.option(
        "--preset",
        type=click.Choice(["O0", "O1", "O2", "O3"]),
        default=default,
        show_default=True,
        help=explanation,
    )


def input_data(explanation: str) -> Decorator:
    """`--input`."""
    return click.option("--input", "inputs", multiple=True, metavar="[NAME=]FILE", help=explanation)


def verification(command: Command) -> Command:
    """`--no-verify` and `--seed`."""
    command = click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random inputs."
    )(command)
    return click.option("--no-verify", is_flag=True, help="Do not compare the result with ONNX Runtime.")(
        command
    )


def tuning(command: Command) -> Command:
    """`--tune`, `--tune-db`, `--require-tuned` and `--threads` of a search."""
    command = click.option(
        "--require-tuned", is_flag=True, help="Fail where the database lacks a schedule, naming it."
    )(command)
    command = threads(command)
    command = click.option(
        "--tune-db",
        type=parameters.OUTPUT,
        help="Measured schedules to use; with --tune, to add to. Default with --tune: OUTPUT.tune.",
    )(command)
    return click.option(
        "--tune", "trials", type=click.IntRange(1), metavar="TRIALS", help="Measure schedules first."
    )(command)


def precision(command: Command) -> Command:
    """`--precision` and `--keep-float`."""
    command = click.option(
        "--keep-float",
        multiple=True,
        metavar="PATTERN",
        help="With bf16, fp16 or tf32: what has this name or operator stays fp32.",
    )(command)
    return click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16", "tf32"]),
        default="fp32",
        show_default=True,
        help="Of what convolutions and products multiply, where the target gains from it; sums are fp32, with fp16 on ARM those of 72 products fp16. tf32 is for GPUs: fp32 of 11 significant bits.",
    )(command)


def pass_hooks(command: Command) -> Command:
    """`--dump` and `--stop-after`."""
    command = click.option(
        "--dump", type=parameters.FOLDER, help="Write the model to this folder after each pass."
    )(command)
    return click.option(
        "--stop-after", type=click.IntRange(0), help="Run only the first N passes, to bisect."
    )(command)


def schedule(command: Command) -> Command:
    """`--runs` and `--blocks`."""
    command = click.option(
        "--runs", type=click.IntRange(1), default=20, show_default=True, help="Runs a block."
    )(command)
    return click.option(
        "--blocks", type=click.IntRange(1), default=5, show_default=True, help="Blocks; backends take turns."
    )(command)


def export(command: Command) -> Command:
    """`--emit`, and what goes with it."""
    command = click.option(
        "--single-thread", is_flag=True, help="With --emit: for systems without pthreads."
    )(command)
    command = click.option(
        "--separate-weights",
        is_flag=True,
        help="Weights in a file of their own: OUTPUT.weights; with --emit, below share.",
    )(command)
    command = click.option(
        "--name", metavar="NAME", help="With --emit: the model's name in C; by default the file's."
    )(command)
    return click.option(
        "--emit",
        type=click.Choice(["artifact", "static", "library", "object", "c-header"]),
        default="artifact",
        show_default=True,
        help="A .gopt file; or a folder with headers, an archive, a shared library or an object, and what finds them.",
    )(command)


def export_settings(chosen: dict[str, Any]) -> dict[str, Any] | None:
    """Keyword arguments of `api.export`, None for an artifact. Raises GraphoptError for options that want --emit."""
    kind, name = chosen["emit"], chosen["name"]
    single = chosen["single_thread"]
    if kind != "artifact":
        embedded = not chosen["separate_weights"]
        return {"kind": kind, "name": name, "embed_weights": embedded, "single_thread": single}
    given = {"--name": name, "--single-thread": single}
    if unused := [option for option, value in given.items() if value]:
        raise GraphoptError(f"{', '.join(unused)}: only with --emit static, library, object or c-header")
    return None


def build_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `api.build`. Raises GraphoptError for text that says nothing."""
    rounding = {name: chosen[name] for name in ("precision", "keep_float")}
    return {**optimize_settings({**chosen, "dims": ()}), **shape_settings(chosen), **rounding}


def shape_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that fix shapes, several ones included. Raises GraphoptError for text that says nothing."""
    return {
        "dims": {name: _sizes(text) for name, text in _pairs(chosen["dims"], "--dim")},
        "input_shapes": _shapes(chosen["input_shapes"]),
        "bind": _values(chosen["bind"]),
    }


def tuning_settings(chosen: dict[str, Any], output: Path) -> Any:
    """The `Tuning` of compile, None without any. Raises GraphoptError for options that do not fit each other."""
    from graphopt.timing.tuning import Budget, Tuning

    database, trials, required = (chosen[name] for name in ("tune_db", "trials", "require_tuned"))
    if database is None and trials is None:
        if required:
            raise TuningError("--require-tuned needs --tune-db FILE")
        return None
    if database is not None and trials is None and not database.exists():
        raise TuningError(f"there is no tuning database {database}; `graphopt tune` or --tune makes one")
    budget = None if trials is None else Budget(trials)
    return Tuning(database or output.with_suffix(".tune"), budget, chosen["threads"], required)


def sizes(texts: Sequence[str]) -> dict[str, int]:
    """Of dimensions, one each. Raises ShapeError for text that says nothing."""
    return {name: _size(text) for name, text in _pairs(texts, "--dim")}


def optimize_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `api.optimize`. Raises GraphoptError for text that says nothing."""
    from graphopt.artifacts.running import read_feeds

    feeds = read_feeds(chosen["inputs"])
    return {
        "dims": sizes(chosen["dims"]),
        "input_shapes": _shapes(chosen["input_shapes"]),
        "preset": chosen["preset"],
        "inputs": [feeds] if feeds else [],
        "check": not chosen["no_verify"],
        "seed": chosen["seed"],
        "hooks": _hooks(chosen["dump"], chosen["stop_after"]),
    }


def compare_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `api.compare`. Raises GraphoptError for text that says nothing."""
    from graphopt.artifacts.running import read_feeds
    from graphopt.timing.bench import Schedule

    return {
        "dims": sizes(chosen["dims"]),
        "input_shapes": _shapes(chosen["input_shapes"]),
        "bind": _values(chosen["bind"]),
        "feeds": read_feeds(chosen["inputs"]) or None,
        "target": chosen["target"],
        "threads": chosen["threads"],
        "schedule": Schedule(chosen["runs"], chosen["blocks"]),
    }


def backends(names: Sequence[str]) -> dict[str, Path | None]:
    """Backends by name with the file each is to run; without names all that are installed."""
    from graphopt.backends.peers import BACKENDS

    if not names:
        return {name: None for name, backend in BACKENDS.items() if backend.available() is None}
    chosen: dict[str, Path | None] = {}
    for text in names:
        name, _, file = text.partition("=")
        if name in chosen:
            raise GraphoptError(f"--backend {name} is given twice")
        if file and not Path(file).is_file():
            raise GraphoptError(f"--backend {text}: there is no file {file}")
        chosen[name] = Path(file) if file else None
    return chosen


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.rpartition("=")
        if not separator or not name or not value:
            raise ShapeError(f"{option} {text!r}: write NAME=VALUE")
        if name in pairs:
            raise ShapeError(f"{option} {name!r} is given twice")
        pairs[name] = value
    return list(pairs.items())


def _size(text: str) -> int:
    if not SIZE.fullmatch(text.strip()) or not 1 <= int(text) <= LARGEST_SIZE:
        raise ShapeError(f"{text!r} is not a size: sizes are whole numbers from 1 to {LARGEST_SIZE}")
    return int(text)


def _sizes(text: str) -> int | list[int]:
    sizes = [_size(part) for part in text.split(",")]
    if len(set(sizes)) < len(sizes):
        raise ShapeError(f"--dim {text!r}: a size is given twice")
    return sizes[0] if len(sizes) == 1 else sizes


def _shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(_size(part) for part in text.split(",")) for name, text in _pairs(texts, "--input-shape")
    }


def _values(texts: Sequence[str]) -> dict[str, Array]:
    return {name: _value(text) for name, text in _pairs(texts, "--bind")}


def _value(text: str) -> Array:
    """Numbers separated by commas, a single one for a scalar, or the path of an .npy file."""
    if text.endswith(".npy"):
        from graphopt.feeds.data import load_arrays

        return next(iter(load_arrays(Path(text)).values()))
    parts = text.split(",")
    try:
        numbers = [int(part) if part.strip().lstrip("-").isdecimal() else float(part) for part in parts]
        return np.asarray(numbers[0] if len(numbers) == 1 else numbers)
    except (ValueError, OverflowError):
        raise DataError(f"--bind: {text!r} is neither numbers separated by commas nor an .npy file") from None


def _hooks(dump: Path | None, stop_after: int | None) -> list[Any]:
    from graphopt.rewriting.pipeline import Dump, StopAfter

    hooks: list[Any] = [] if dump is None else [Dump(_folder(dump))]
    return hooks if stop_after is None else [*hooks, StopAfter(stop_after)]


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
    return path
