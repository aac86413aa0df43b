"""The commands that time models: `compare`, and the ways of `bench`. Each measures, then prints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.cli import options, parameters
from graphopt.cli.printing import progress_display, publish
from graphopt.errors import GraphoptError

if TYPE_CHECKING:
    from graphopt.cli.inspection import Loops
    from graphopt.cli.progress import Display
    from graphopt.timing.bench import Benchmark


def compare(
    model: Path,
    names: tuple[str, ...],
    json_file: str | None,
    html: Path | None,
    layers: bool,
    chosen: dict[str, Any],
) -> None:
    """One model on several backends, and its tensors if asked."""
    settings = options.compare_settings(chosen)
    backends = options.backends(names)
    with progress_display(json_file) as progress:
        from graphopt import api
        from graphopt.cli import report
        from graphopt.model.variants import Binding

        result = api.compare(model, backends, progress=progress, **settings)
        content, tables = result.to_json(), [report.comparison_table(result)]
        if layers:
            del settings["schedule"]
            binding = Binding(settings.pop("dims"), settings.pop("input_shapes"), settings.pop("bind"))
            found = api.compare_tensors(model, backends, binding, progress=progress, **settings)
            content["layers"] = found.to_json()
            tables.append(report.departure_table(found))
    if html is not None:
        report.write_text(report.comparison_html(result), str(html))
    publish(json_file, content, *tables)
    _require_any_result(result)


def bench_compiled(model: Path, json_file: str | None, chosen: dict[str, Any]) -> None:
    """One artifact; what its loops could reach where it was made for another machine, which nothing here can time."""
    if (loops := foreign_loops(model)) is not None:
        publish(json_file, loops.to_json(), loops.table())
        return
    settings = options.compare_settings(chosen)
    with progress_display(json_file) as progress:
        import graphopt_runtime
        from graphopt.artifacts import running
        from graphopt.cli import report
        from graphopt.timing.measuring import bench_artifact

        progress("measure")
        with graphopt_runtime.load(model) as compiled:
            feeds = running.feeds_for(compiled, chosen["inputs"])
        result = bench_artifact(model, feeds, settings["threads"], settings["schedule"])
    publish(json_file, result.to_json(), report.comparison_table(result))
    _require_any_result(result)


def bench_on_device(model: Path, name: str, json_file: str | None, chosen: dict[str, Any]) -> None:
    """One artifact on a board. Raises GraphoptError for an ONNX model."""
    if not parameters.is_artifact(model):
        raise GraphoptError(f"{model} is not compiled; compile it for the device first")
    settings = options.compare_settings(chosen)
    with progress_display(json_file) as progress:
        from graphopt.artifacts import devices, running
        from graphopt.cli import report

        device = devices.find_device(name)
        progress(f"send to {name}")
        with device.load(model, settings["threads"] or 0) as loaded:
            feeds = running.feeds_for(loaded, chosen["inputs"])
            progress("measure")
            runs = settings["schedule"].runs * settings["schedule"].blocks
            times = devices.measure(str(model), device, loaded, feeds, runs).to_json()
    row = [str(value) if not isinstance(value, float) else f"{value:.3f}" for value in times.values()]
    publish(json_file, times, report.table(list(times), [row]))


def foreign_loops(path: Path) -> Loops | None:
    """The loops of an artifact that was made for another architecture alone, None for any other."""
    from graphopt.cli.inspection import judge_loops
    from graphopt_runtime import cpu
    from graphopt_runtime.artifact import open_artifact

    opened = open_artifact(path, verify=False)
    architectures = {build["target"].get("arch") for build in opened.builds}
    return None if cpu.architecture() in architectures else judge_loops(opened)


def bench_streams(model: Path, streams: int, json_file: str | None, chosen: dict[str, Any]) -> None:
    """Several callers of one loaded model."""
    settings = options.compare_settings(chosen)
    with progress_display(json_file) as progress, _compiled(model, settings, progress) as artifact:
        import graphopt_runtime
        from graphopt.artifacts import running
        from graphopt.cli import report
        from graphopt.timing.streams import measure_streams

        progress("measure")
        calls = settings["schedule"].runs * settings["schedule"].blocks
        with graphopt_runtime.load(artifact, settings["threads"]) as compiled:
            feeds = running.feeds_for(compiled, chosen["inputs"])
            load = measure_streams(str(model), compiled, feeds, streams, calls)
    publish(json_file, load.to_json(), report.load_table(load))


def bench_layers(
    model: Path, json_file: str | None, html: Path | None, trace: Path | None, chosen: dict[str, Any]
) -> None:
    """Every kernel of an ONNX model. Raises GraphoptError for an artifact, which has no profile."""
    if parameters.is_artifact(model):
        raise GraphoptError(f"{model} was compiled without profiling; give the ONNX model to time its layers")
    settings = options.compare_settings(chosen)
    runs = settings.pop("schedule").runs
    with progress_display(json_file) as progress:
        from graphopt import api
        from graphopt.cli import report
        from graphopt.timing.layers import chrome_trace

        times = api.profile(model, runs=runs, progress=progress, **settings)
    if html is not None:
        report.write_text(report.layer_html(times), str(html))
    if trace is not None:
        report.write_json(chrome_trace(times), str(trace))
    publish(json_file, times.to_json(), report.layer_table(times))


@contextmanager
def _compiled(model: Path, settings: Mapping[str, Any], progress: Display) -> Iterator[Path]:
    """The artifact itself, or one made for the time being from an ONNX model."""
    if parameters.is_artifact(model):
        yield model
        return
    from graphopt import api

    build = {name: settings[name] for name in ("dims", "input_shapes", "bind", "target")}
    with tempfile.TemporaryDirectory() as folder:
        yield api.build(model, Path(folder) / "model.gopt", check=False, progress=progress, **build).path


def _require_any_result(result: Benchmark) -> None:
    """Raises GraphoptError if no backend could run the model."""
    errors = [f"  {name}: {one.error}" for name, one in result.backends.items()]
    if all(one.error for one in result.backends.values()):
        raise GraphoptError("no backend could run the model:\n" + "\n".join(errors))
