"""What `inspect`, `targets` and `passes` show."""

from __future__ import annotations

import dataclasses
import inspect as introspection
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graphopt.model import Statistics, load, normalise, statistics
from graphopt_runtime.artifact import CODING

if TYPE_CHECKING:
    from graphopt.backends.kernels.core import Core
    from graphopt.backends.quality import Loop
    from graphopt.backends.targets import Target
    from graphopt.cli.report import Table
    from graphopt.rewriting.pipeline import Pass
    from graphopt_runtime.artifact import Artifact


LOOP_COLUMNS = [
    "kernel",
    "instructions",
    "multiply-adds",
    "on the stack",
    "cycles",
    "of peak",
    "most frequent",
]

FREQUENT = 4
"""Instructions that are named."""


class Inspection(Protocol):
    """What there is to show of a file."""

    def to_json(self) -> dict[str, Any]: ...

    def tables(self, kernels: bool) -> Sequence[Table]: ...


def inspect_model(path: Path) -> Inspection:
    """Look into an ONNX model. Raises ModelError."""
    model = load(path)
    normalise(model)
    return _ModelInspection(path.name, statistics(model))


def inspect_artifact(path: Path, loops: bool = False) -> Inspection:
    """Look into an artifact without running anything in it, and into the loops of its kernels if asked. Raises ArtifactError."""
    from graphopt_runtime.artifact import open_artifact
    from graphopt_runtime.tensors import parse_variants

    opened = open_artifact(path, verify=False)
    parse_variants(opened.manifest)
    targets = [str(build["target"].get("name")) for build in opened.builds]
    judged = judge_loops(opened) if loops else None
    size = sum(file.stat().st_size for file in {opened.program.path, opened.store.path})
    return _ArtifactInspection(path.name, targets, opened.manifest, size, judged)


def _kernel_table(calls: Sequence[Mapping[str, Any]]) -> Table:
    """The kernels in order, with the threads of those of GPUs."""
    from graphopt.cli.report import table

    on_gpu = any("threads" in call for call in calls)
    rows = []
    for number, call in enumerate(calls):
        threads = [f"{call['threads']:,}"] if on_gpu else []
        rows.append([str(number), call.get("symbol", call["kernel"]), *threads, call["nodes"]])
    header = ["#", "kernel", *(["threads"] if on_gpu else []), "nodes"]
    return table(header, rows, title="kernels in order")


@dataclass(frozen=True)
class Loops:
    """What LLVM's model of the core says of the multiplying loops of a library, or why it says nothing."""

    target: str
    loops: Sequence[Loop] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {
            "target": self.target,
            "loops": [loop.to_json() for loop in self.loops],
            "reason": self.reason,
        }

    def table(self) -> Table:
        from graphopt.cli.report import table

        if self.reason:
            return table(["not judged"], [[self.reason]])
        title = f"multiplying loops on {self.target}, simulated: cycles with perfect caches, no times"
        return table(LOOP_COLUMNS, [_loop_row(loop) for loop in self.loops], title=title)


def _loop_row(loop: Loop) -> list[str]:
    frequent = sorted(loop.mix.items(), key=lambda item: -item[1])[:FREQUENT]
    return [
        loop.kernel,
        str(loop.instructions),
        str(loop.macs),
        str(loop.spills),
        f"{loop.cycles:.1f}",
        f"{100 * loop.of_peak:.0f} %",
        ", ".join(f"{name} {count}" for name, count in frequent),
    ]


def judge_loops(opened: Artifact) -> Loops:
    """The loops of the last build of an artifact."""
    from graphopt.backends.quality import cannot_judge, judge
    from graphopt.backends.targets import TARGETS

    name = str(opened.manifest["target"].get("name"))
    if name not in TARGETS:
        return Loops(name, reason=f"this version of graphopt has no target {name}")
    if (reason := cannot_judge(TARGETS[name])) is not None:
        return Loops(name, reason=reason)
    return Loops(name, judge(bytes(opened.library), TARGETS[name]))


@dataclass(frozen=True)
class _ModelInspection:
    name: str
    statistics: Statistics

    def to_json(self) -> dict[str, Any]:
        return asdict(self.statistics)

    def tables(self, kernels: bool) -> Sequence[Table]:
        from graphopt.cli.report import statistics_table, table

        rows = [
            [kind, tensor.name, tensor.dtype, " x ".join(map(str, tensor.shape))]
            for kind in ("input", "output")
            for tensor in getattr(self.statistics, f"{kind}s")
        ]
        signature = table(["", "name", "dtype", "shape"], rows, title=self.name)
        return [signature, statistics_table({"count": self.statistics})]


@dataclass(frozen=True)
class _ArtifactInspection:
    """`manifest` is that of the last target."""

    name: str
    targets: Sequence[str]
    manifest: Mapping[str, Any]
    size: int
    loops: Loops | None

    def to_json(self) -> dict[str, Any]:
        found = {"bytes": self.size, "targets": list(self.targets), **self.manifest}
        return found if self.loops is None else {**found, "loops": self.loops.to_json()}

    def tables(self, kernels: bool) -> Sequence[Table]:
        from graphopt.cli.report import table

        shown = [table(["what", "value"], [*self._facts(), *self._variants()], title=self.name)]
        if kernels:
            shown.append(_kernel_table(self.manifest.get("kernels", [])))
        if self.loops is not None:
            shown.append(self.loops.table())
        return shown

    def _facts(self) -> list[list[str]]:
        target = self.manifest["target"]
        return [
            ["bytes", f"{self.size:,}"],
            ["weights", _weights(self.manifest)],
            ["targets", ", ".join(self.targets)],
            ["CPU features", " ".join(map(str, target.get("features", ())))],
            ["built with", f"graphopt {self.manifest.get('graphopt')}, TVM {self.manifest.get('tvm')}"],
            ["compared with ONNX Runtime", _verification(self.manifest.get("verification", {}))],
        ]

    def _variants(self) -> list[list[str]]:
        return [
            [f"variant {number} {kind[:-1]}", f"{t['name']}: {t['dtype']} {t['shape']}"]
            for number, variant in enumerate(self.manifest["variants"])
            for kind in ("inputs", "outputs")
            for t in variant[kind]
        ]


def _weights(manifest: Mapping[str, Any]) -> str:
    """Bytes in the file, and in memory where these are others."""
    stored = f"{manifest['weights_bytes']:,} bytes"
    return f"{stored}, {manifest[CODING]['bytes']:,} when loaded" if CODING in manifest else stored


def _verification(found: Mapping[str, Any]) -> str:
    return "yes" if found.get("verified") else f"no: {found.get('reason', 'unknown')}"


def target_rows() -> list[dict[str, str]]:
    """A row a target: what this machine can do for it, and what is missing."""
    from graphopt.backends.targets import TARGETS, native

    best = native()
    return [
        {
            "target": f"{target.name} (native)" if target.name == best.name else target.name,
            "for": target.description,
            "builds here": _builds(target),
            "runs here": _runs(target),
            "kernels use": _instructions(target.core),
            "needs": " ".join(target.demands),
        }
        for target in TARGETS.values()
    ]


def _instructions(core: Core) -> str:
    """Those of float32, and those of each type that has its own."""
    named = {"int8": core.dot, "bf16": core.half, "fp16": core.float16}
    more = [f"; {name}: {each.instruction}" for name, each in named.items() if each is not None]
    return f"{core.multiply} ({core.lanes} x float32){''.join(more)}"


def _builds(target: Target) -> str:
    from graphopt.backends.codegen.toolchain import missing_compiler
    from graphopt.backends.cuda.nvcc import missing_nvcc

    missing = missing_compiler(target.compiler)
    if target.device and missing is None:
        missing = missing_nvcc()
    return "yes" if missing is None else f"no: {missing}"


def _runs(target: Target) -> str:
    from graphopt.backends.emulation import PACKAGE
    from graphopt.backends.execution import emulator_of
    from graphopt.backends.targets import runs_here

    reason = runs_here(target)
    if reason is None:
        return "yes"
    if (name := emulator_of(target)) is not None:
        return f"under {name}"
    return f"no: {reason}" + (f"; apt-get install {PACKAGE}" if target.platform.emulator else "")


@dataclass(frozen=True)
class PassInfo:
    """A pass: its name, the presets that use it, its options with their defaults, and what it does."""

    name: str
    presets: list[str]
    options: dict[str, str]
    summary: str

    def row(self) -> list[str]:
        options = ", ".join(f"{name}={default}" for name, default in self.options.items())
        return [self.name, " ".join(self.presets), self.summary, options]


def pass_infos() -> list[PassInfo]:
    """Every pass in the table of passes."""
    from graphopt.passes import PASSES, PRESETS

    users = {
        name: [preset for preset, members in PRESETS.items() if any(isinstance(m, each) for m in members)]
        for name, each in PASSES.items()
    }
    return [PassInfo(name, users[name], _options(each), _summary(each)) for name, each in PASSES.items()]


def _summary(each: type[Pass]) -> str:
    """The first paragraph of its documentation."""
    return " ".join((introspection.getdoc(each) or "").split("\n\n")[0].split())


def _options(each: Any) -> dict[str, str]:
    """Field -> default, where a pass has any."""
    return {field.name: _default(field) for field in dataclasses.fields(each)}


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else repr(field.default_factory())
