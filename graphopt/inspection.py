"""What `inspect`, `targets` and `passes` show."""

from __future__ import annotations

import dataclasses
import inspect as introspection
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graphopt.model import Statistics, load, normalise, statistics

if TYPE_CHECKING:
    from graphopt.pipeline import Pass
    from graphopt.report import Table


class Inspection(Protocol):
    """What there is to show of a file."""

    def to_json(self) -> dict[str, Any]: ...

    def tables(self, kernels: bool) -> Sequence[Table]: ...


def inspect_model(path: Path) -> Inspection:
    """Look into an ONNX model. Raises ModelError."""
    model = load(path)
    normalise(model)
    return _ModelInspection(path.name, statistics(model))


def inspect_artifact(path: Path) -> Inspection:
    """Look into an artifact without running anything in it. Raises ArtifactError."""
    from graphopt_runtime.artifact import open_artifact
    from graphopt_runtime.tensors import parse_variants

    opened = open_artifact(path, verify=False)
    parse_variants(opened.manifest)
    targets = [str(build["target"].get("name")) for build in opened.builds]
    return _ArtifactInspection(path.name, targets, opened.manifest, path.stat().st_size)


@dataclass(frozen=True)
class _ModelInspection:
    name: str
    statistics: Statistics

    def to_json(self) -> dict[str, Any]:
        return asdict(self.statistics)

    def tables(self, kernels: bool) -> Sequence[Table]:
        from graphopt.report import statistics_table, table

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
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "targets": list(self.targets), **self.manifest}

    def tables(self, kernels: bool) -> Sequence[Table]:
        from graphopt.report import table

        shown = [table(["what", "value"], [*self._facts(), *self._variants()], title=self.name)]
        if kernels:
            calls = self.manifest.get("kernels", [])
            numbered = [[str(i), f"{call['kernel']}: {call['nodes']}"] for i, call in enumerate(calls)]
            shown.append(table(["#", "kernel: nodes"], numbered, title="kernels in order"))
        return shown

    def _facts(self) -> list[list[str]]:
        target = self.manifest["target"]
        return [
            ["bytes", f"{self.bytes:,}"],
            ["weights", f"{self.manifest['weights_bytes']:,} bytes"],
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


def _verification(found: Mapping[str, Any]) -> str:
    return "yes" if found.get("verified") else f"no: {found.get('reason', 'unknown')}"


def target_rows() -> list[dict[str, str]]:
    """A row a target."""
    from graphopt.backends.targets import TARGETS, native, runs_here

    best = native()
    rows = []
    for target in TARGETS.values():
        reason = runs_here(target)
        rows.append(
            {
                "target": f"{target.name} (native)" if target.name == best.name else target.name,
                "runs here": "yes" if reason is None else f"no: {reason}",
                "features": " ".join(target.features),
                "for": target.description,
            }
        )
    return rows


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
