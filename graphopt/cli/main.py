"""The command line: click commands of a few lines each, over `graphopt.api`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli import compressing as cli_compressing
from graphopt.cli import distilling as cli_distilling
from graphopt.cli import looking as cli_looking
from graphopt.cli import lossy_options, lossy_steps, options, parameters
from graphopt.cli import measuring as cli_measuring
from graphopt.cli import pruning as cli_pruning
from graphopt.cli import quantizing as cli_quantizing
from graphopt.cli import sparsifying as cli_sparsifying
from graphopt.cli.commands import Commands, example
from graphopt.cli.printing import announce, progress_display, publish

if TYPE_CHECKING:
    from graphopt.backends.execution import Model

PRESET_HELP = (
    "O0: nothing. O1: fold what is constant and remove what does nothing, bit for bit the same. "
    "O2: O1 and fusion into standard operators, the same up to rounding. "
)
COMPILE_PRESET_HELP = PRESET_HELP + "O3: as O2, into operators of the compiler's own too."
OPTIMIZE_PRESET_HELP = PRESET_HELP + "O3: for `compile` only, which reads its operators."


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="graphopt")
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Compile ONNX models to small, fast, self-contained libraries.

    Exit codes: 0 done, 1 a check failed, 2 wrong usage or bad input, 130 interrupted.

    \b
    Example:
      graphopt compile model.onnx -o model.gopt
      graphopt bench model.gopt
    """


@example("graphopt compile minilm.onnx --dim batch=1 --dim seq=32,64,128 -o minilm.gopt")
@main.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The artifact, MODEL.gopt by default; with --emit a folder, MODEL by default.",
)
@options.targets
@options.export
@options.dims(several=True)
@options.input_shapes
@options.bind
@options.preset("O3", COMPILE_PRESET_HELP)
@options.input_data("Real inputs to verify on, besides random ones.")
@options.verification
@options.tuning
@cli_pruning.pruning_option
@cli_compressing.clustering_option
@click.option(
    "--quantize",
    type=click.Choice(cli_quantizing.SCHEMES),
    help="Quantise first, as `graphopt quantize` does.",
)
@cli_quantizing.quantization
@options.precision
@options.pass_hooks
@options.json_file
def compile(model: Path, output: Path | None, target: str, json_file: str | None, **chosen: Any) -> None:
    """Compile MODEL.onnx into a file that runs without TVM or ONNX, or into a library for C and C++ builds.

    The result is compared with ONNX Runtime before it is written; exit code 1 if they differ.
    """
    exported = options.export_settings(chosen)
    output = output or model.with_suffix(".gopt" if exported is None else "")
    apart = chosen["separate_weights"]
    parameters.require_writable(output, folder=exported is not None)
    if apart and exported is None:
        from graphopt.artifacts.artifact import weights_path

        parameters.require_writable(weights_path(output))
    settings = {**options.build_settings(chosen), "tuning": options.tuning_settings(chosen, output)}
    steps = [
        cli_pruning.compile_step(chosen),
        cli_compressing.compile_step(chosen),
        cli_quantizing.compile_step(chosen, output),
    ]
    with progress_display(json_file) as progress:
        from graphopt import api
        from graphopt.cli import report

        taken = lossy_steps.take(steps, model, progress)
        if exported is None:
            done = api.build(
                taken.model, output, target, separate_weights=apart, progress=progress, **settings
            )
        else:
            done = api.export(taken.model, output, target, progress=progress, **exported, **settings)
    announce([*taken.notices, *done.notices])
    integers = (
        f"{100 * done.integer_share:.1f} % of multiply-adds on integers, " if done.integer_share else ""
    )
    line = (
        f"{done.path}: {done.bytes / 1e6:.2f} MB, {done.before.nodes} -> {done.after.nodes} nodes, "
        f"{done.kernels} kernels, {integers}{sum(done.seconds.values()):.1f} s; {done.verdict}"
    )
    publish(
        json_file,
        done.to_json(),
        *taken.tables,
        report.pass_table(done.report),
        report.refusal_table(done.report),
        line=line,
    )


@example("graphopt tune resnet50.onnx --trials 1000 --seconds 300 --db resnet50.tune")
@main.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option(
    "--db", type=parameters.OUTPUT, help="Where schedules are kept, and added to; MODEL.tune by default."
)
@click.option(
    "--trials", type=click.IntRange(1), default=1000, show_default=True, help="Most schedules to measure."
)
@click.option("--seconds", type=click.FloatRange(1), default=float("inf"), help="Most seconds to take.")
@options.target
@options.dims(several=True)
@options.input_shapes
@options.bind
@options.preset("O3", COMPILE_PRESET_HELP)
@options.precision
@options.threads
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Build on a Ray cluster: auto, ray://HOST:PORT, or local for workers here. Measuring stays here.",
)
@options.devices
@options.json_file
def tune(
    model: Path,
    db: Path | None,
    trials: int,
    seconds: float,
    target: str,
    json_file: str | None,
    **chosen: Any,
) -> None:
    """Measure schedules for the kernels of MODEL.onnx, here or on a device, until gains fade or the budget is spent.

    The database grows by a line a trial; an interrupted search goes on where it was. `compile --tune-db` uses it.
    """
    db = db or model.with_suffix(".tune")
    parameters.require_writable(db)
    settings = options.shape_settings(chosen)
    with progress_display(json_file) as progress:
        from graphopt import api
        from graphopt.cli import report
        from graphopt.timing.tuning import Budget, Tuning

        tuning = Tuning(
            db, Budget(trials, seconds), chosen["threads"], ray=chosen["ray"], device=chosen["device"]
        )
        how = {name: chosen[name] for name in ("preset", "precision", "keep_float")}
        done = api.tune(model, tuning, target, progress=progress, **how, **settings)
    publish(json_file, done.to_json(), report.tuning_table(done), line=f"{db}: {done}")


@example("graphopt optimize model.onnx -o smaller.onnx")
@main.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The optimized model.")
@options.dims(several=False)
@options.input_shapes
@options.preset("O2", OPTIMIZE_PRESET_HELP)
@options.input_data("Real inputs to verify on, besides random ones.")
@options.verification
@options.pass_hooks
@options.json_file
def optimize(model: Path, output: Path, json_file: str | None, **chosen: Any) -> None:
    """Rewrite MODEL.onnx into a smaller equivalent ONNX model.

    The result is compared with the original in ONNX Runtime before it is written; exit code 1 if they differ.
    """
    settings = options.optimize_settings(chosen)
    with progress_display(json_file) as progress:
        from graphopt import api
        from graphopt.cli import report

        done = api.optimize(model, output, progress=progress, **settings)
    announce(done.notices)
    content = {
        "nodes_before": done.before.nodes,
        "nodes_after": done.after.nodes,
        "bytes": output.stat().st_size,
        "applied": dict(done.report.applied),
        "verification": done.verdict.to_json(),
        "notices": done.notices,
    }
    line = f"{output}: {done.before.nodes} -> {done.after.nodes} nodes; {done.verdict}"
    publish(json_file, content, report.pass_table(done.report), report.refusal_table(done.report), line=line)


@example("graphopt quantize model.onnx --calib images/ --preprocess imagenet -o model.int8.onnx")
@main.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option("-o", "--output", type=parameters.OUTPUT, required=True, help="The quantised model.")
@click.option(
    "--scheme",
    type=click.Choice(cli_quantizing.SCHEMES),
    default="int8",
    show_default=True,
    help="Activations and weights with ranges from data, or found at run time; or weights alone.",
)
@cli_quantizing.quantization
@lossy_options.listed(*lossy_options.RECOVERING)
@options.json_file
def quantize(model: Path, output: Path, scheme: str, json_file: str | None, **chosen: Any) -> None:
    """Quantise MODEL.onnx to standard ONNX on integers, which any runtime reads.

    Ranges come from calibration data. What it cost is measured on --eval, or else on that data itself.
    """
    settings = cli_quantizing.settings(chosen, scheme, output)
    with progress_display(json_file) as progress:
        from graphopt.compression import quantizing

        done = quantizing.quantize(
            model, output=output, recover_minutes=chosen["recover"], progress=progress, **settings
        )
    announce(done.warnings)
    ratio = output.stat().st_size / max(model.stat().st_size, 1)
    size = f"{output.stat().st_size / 1e6:.2f} MB, {ratio:.2f} of before"
    line = f"{output}: {size}; {cli_quantizing.summary(done)}"
    publish(json_file, done.to_json(), *cli_quantizing.tables(done), line=line)


@example("graphopt run model.gopt --input x.npy -o out.npz")
@main.command()
@click.argument("model", type=parameters.ARTIFACT)
@options.input_data("An .npy or .npz file, or a folder of .npy files; random values without.")
@click.option(
    "-o", "--output", type=parameters.OUTPUT, help="Where outputs go, an .npz keyed by output name."
)
@options.threads
@options.device
@options.json_file
def run(
    model: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    threads: int | None,
    device: str | None,
    json_file: str | None,
) -> None:
    """Run a compiled model. This executes code in MODEL: run only artifacts that you trust.

    A model for another architecture runs under an emulator (qemu-user-static), if that is installed.
    """
    from graphopt.artifacts import running

    opened, where = _opened(model, threads, device)
    if where:
        announce([f"{model} runs {where}"])
    with opened as compiled:
        outputs = running.run(compiled, running.feeds_for(compiled, inputs))
    if output is not None:
        running.save(outputs, output)
    content = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in outputs.items()}
    values = "\n".join(f"{name}: {a.dtype} {list(a.shape)}\n{a}" for name, a in outputs.items())
    publish(json_file, content, line=str(output) if output is not None else values)


def _opened(model: Path, threads: int | None, device: str | None) -> tuple[Model, str]:
    """A compiled model ready to run, and where it does if not simply here."""
    from graphopt.artifacts.devices import find_device
    from graphopt.backends.execution import open_anywhere

    if device is not None:
        return find_device(device).load(model, threads or 0), f"on {device}"
    opened, emulator = open_anywhere(model, threads)
    return opened, f"under {emulator}" if emulator else ""


@example("graphopt bench model.gopt --streams 4")
@main.command()
@click.argument("model", type=parameters.FILE)
@options.dims(several=False)
@options.input_shapes
@options.bind
@options.input_data("An .npy or .npz file, or a folder of .npy files; random values without.")
@options.target
@options.threads
@options.schedule
@click.option("--streams", type=click.IntRange(1), help="Throughput of N threads that call one loaded model.")
@click.option("--per-layer", is_flag=True, help="The time of each kernel, slowest first.")
@click.option("--html", type=parameters.OUTPUT, help="With --per-layer: a page with the roofline plot.")
@click.option(
    "--trace", type=parameters.OUTPUT, help="With --per-layer: a trace for about:tracing or Perfetto."
)
@options.device
@options.json_file
def bench(
    model: Path,
    streams: int | None,
    per_layer: bool,
    html: Path | None,
    trace: Path | None,
    device: str | None,
    json_file: str | None,
    **chosen: Any,
) -> None:
    """Time a compiled model, or an ONNX model compiled for the purpose.

    Options that fix shapes, --target and --per-layer are for an ONNX model. Of a model for another architecture, which
    nothing here can time, the loops are judged; --device times it where it belongs.
    """
    if (html or trace) and not per_layer:
        raise click.UsageError("--html and --trace go with --per-layer.")
    if device is not None:
        cli_measuring.bench_on_device(model, device, json_file, chosen)
    elif per_layer:
        cli_measuring.bench_layers(model, json_file, html, trace, chosen)
    elif streams is not None:
        cli_measuring.bench_streams(model, streams, json_file, chosen)
    elif parameters.is_artifact(model):
        cli_measuring.bench_compiled(model, json_file, chosen)
    else:
        cli_measuring.compare(model, ("graphopt",), json_file, None, False, chosen)


@example("graphopt compare model.onnx --backend graphopt --backend onnxruntime")
@main.command()
@click.argument("model", type=parameters.ONNX_MODEL)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME[=FILE]",
    help="May be repeated. Default: all installed.",
)
@options.dims(several=False)
@options.input_shapes
@options.bind
@options.input_data("An .npy or .npz file, or a folder of .npy files; random values without.")
@options.target
@options.threads
@options.schedule
@click.option(
    "--layers", is_flag=True, help="Also compare every tensor between the nodes: which departs first?"
)
@click.option("--html", type=parameters.OUTPUT, help="Also write a page.")
@options.json_file
def compare(
    model: Path,
    backends: tuple[str, ...],
    layers: bool,
    html: Path | None,
    json_file: str | None,
    **chosen: Any,
) -> None:
    """Run one model on several backends side by side, interleaved, and compare their outputs."""
    cli_measuring.compare(model, backends, json_file, html, layers, chosen)


COMMANDS = (
    *cli_compressing.COMMANDS,
    *cli_distilling.COMMANDS,
    *cli_looking.COMMANDS,
    *cli_pruning.COMMANDS,
    *cli_sparsifying.COMMANDS,
)

for command in COMMANDS:
    main.add_command(command)
