"""Commands that look at models, targets and this machine, and hand out what other builds and boards need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from graphopt.cli import options, parameters
from graphopt.cli.commands import example
from graphopt.cli.printing import publish


@example("graphopt inspect model.onnx --json -")
@click.command()
@click.argument("model", type=parameters.FILE)
@click.option("--kernels", is_flag=True, help="List the kernels of a compiled model, and judge their loops.")
@options.json_file
def inspect(model: Path, kernels: bool, json_file: str | None) -> None:
    """Show what is in an ONNX model or in a compiled one; free dimensions count as 1."""
    from graphopt.cli import inspection

    compiled = parameters.is_artifact(model)
    found = inspection.inspect_artifact(model, kernels) if compiled else inspection.inspect_model(model)
    publish(json_file, found.to_json(), *found.tables(kernels))


@example("graphopt targets")
@click.command()
@options.json_file
def targets(json_file: str | None) -> None:
    """List the targets, and which of them this machine can run."""
    from graphopt.cli import inspection, report

    rows = inspection.target_rows()
    publish(json_file, {"targets": rows}, report.table(list(rows[0]), [list(row.values()) for row in rows]))


@example("graphopt unpack model.gopt -o model")
@click.command()
@click.argument("artifact", type=parameters.ARTIFACT)
@click.option(
    "-o", "--output", type=parameters.FOLDER, help="A folder; the artifact's name without .gopt by default."
)
@click.option("--target", metavar="NAME", help="Which of several builds.")
@options.json_file
def unpack(artifact: Path, output: Path | None, target: str | None, json_file: str | None) -> None:
    """Write what a program in C needs of ARTIFACT: library.so, weights.bin as graphopt_create takes them, and graphopt.h.

    For models on GPUs; `compile --emit` makes libraries for CPUs, with headers of their own.
    """
    from graphopt.artifacts import unpacking

    output = output or artifact.with_suffix("")
    parameters.require_writable(output, folder=True)
    files = unpacking.unpack(artifact, output, target)
    publish(json_file, {"files": [str(file) for file in files]}, line=", ".join(map(str, files)))


@example("cmake -Dgraphopt_DIR=$(graphopt cmake-dir) ...")
@click.command("cmake-dir")
def cmake_dir() -> None:
    """Print the folder in which CMake finds graphopt, and with it graphopt_add_model."""
    click.echo(Path(__file__).parents[1] / "cmake")


@example("graphopt device --target aarch64 -o graphopt-device")
@click.command()
@options.target
@click.option("-o", "--output", type=parameters.OUTPUT, default="graphopt-device", show_default=True)
@options.json_file
def device(target: str, output: Path, json_file: str | None) -> None:
    """Write the program that runs models on a board for `run`, `bench` and `tune` --device.

    Start it there with --port 7420 for connections from the board itself, such as ssh tunnels; with --any, and a token in
    GRAPHOPT_DEVICE_TOKEN, for connections from everywhere. Whoever connects runs code there.
    """
    from graphopt.backends.codegen.toolchain import device_program
    from graphopt.backends.targets import find_target
    from graphopt.files import replacing

    found = find_target(target)
    with replacing(output) as file:
        file.write(device_program(found.compiler))
    output.chmod(0o755)
    line = f"{output}: for {found.name}; start it there: ./{output.name} --port 7420"
    publish(json_file, {"program": str(output), "target": found.name}, line=line)


@example("graphopt passes")
@click.command()
@options.json_file
def passes(json_file: str | None) -> None:
    """List the passes, their options, and the presets that combine them."""
    from graphopt.cli import inspection, report

    infos = inspection.pass_infos()
    shown = report.table(["pass", "presets", "what it does", "options"], [info.row() for info in infos])
    publish(json_file, {"passes": [vars(info) for info in infos]}, shown)


@example("graphopt doctor")
@click.command()
@options.json_file
def doctor(json_file: str | None) -> None:
    """Check that this machine has what graphopt needs; exit code 1 if something is missing."""
    from graphopt.cli import report
    from graphopt.cli.doctor import examine

    checks = examine()
    shown = report.table(["check", "state", "detail"], [check.row() for check in checks])
    publish(json_file, {"checks": [check.to_json() for check in checks]}, shown)
    if not all(check.ok for check in checks):
        sys.exit(1)


COMMANDS: Sequence[click.Command] = (inspect, unpack, targets, cmake_dir, device, passes, doctor)
