"""Opens a .gopt file in place: an archive of a library, weights and a description for each target that it was built for.

Weights may lie apart, in an archive of their own.

Hashes find damage, not malice: loading an artifact runs the code in it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt_runtime.archive import Archive, open_archive
from graphopt_runtime.coding import decode, parse_coding
from graphopt_runtime.errors import ArtifactError

FORMAT = 2
CODED_FORMAT = 3
"""That of artifacts with weights in a coded form; others have `FORMAT`, which older runtimes read too."""

APART_FORMAT = 4
"""That of artifacts whose weights lie in a file of their own, coded or not."""

FORMATS = (FORMAT, CODED_FORMAT, APART_FORMAT)

APART = "{}.weights"
"""The name of that file, unless it is told."""

MANIFEST = "manifest.json"
COMMENT_PREFIX = b"graphopt manifest sha256:"
"""The archive comment is this prefix and the hash of the manifest, which holds the hashes of the other members."""

WEIGHTS_PREFIX = b"graphopt weights sha256:"
"""Of weights that lie apart, the comment is this prefix and the `hash_of_weights` of the manifest."""

CODING = "coding"
"""What a build with coded weights says about them."""

_REQUIRED_KEYS = {"format": int, "builds": list, "hashes": dict}
_REQUIRED_OF_BUILDS = {"target": dict, "variants": list, "weights_bytes": int, "library": str, "weights": str}
_MAX_MANIFEST_BYTES = 256 << 20


Manifest = Mapping[str, Any]
"""What a build says about itself."""


@dataclass(frozen=True)
class Artifact:
    """An open artifact and one of its builds, whose weights are in `store`, the same archive or another."""

    builds: Sequence[Manifest]
    manifest: Manifest
    program: Archive
    store: Archive

    @property
    def path(self) -> Path:
        return self.program.path

    @property
    def library(self) -> memoryview:
        return self.program.read(self.manifest["library"])

    @property
    def weights(self) -> memoryview:
        """In place, or decoded. Raises ArtifactError where that fails."""
        stored = self.store.read(self.manifest["weights"])
        if CODING not in self.manifest:
            return stored
        return decode(stored, parse_coding(self.manifest[CODING], len(stored)), str(self.store.path))


def last_build(builds: Sequence[Manifest], path: Path) -> Manifest:
    """The one that asks most of its CPU."""
    return builds[-1]


def open_artifact(
    path: str | Path,
    verify: bool = True,
    choose: Callable[[Sequence[Manifest], Path], Manifest] = last_build,
    weights: str | Path | None = None,
) -> Artifact:
    """Maps `path`, checks its structure, its format and the hash of its manifest, and `choose`s a build.

    Weights that lie apart are in the file `weights`, by default the one next to it, and must be those of this artifact. The hash
    of the build's library is checked, and with `verify` that of its weights, which reads them all. Raises ArtifactError.
    """
    program = open_archive(Path(path))
    whole = _manifest(program)
    store = _store(program, whole, weights)
    _check_members(whole, program, store)
    artifact = Artifact(whole["builds"], choose(whole["builds"], program.path), program, store)
    _check_hash(program, artifact.manifest["library"], whole)
    if verify:
        _check_hash(store, artifact.manifest["weights"], whole)
    return artifact


def _store(program: Archive, manifest: Manifest, weights: str | Path | None) -> Archive:
    """The archive that the weights are in."""
    if manifest["format"] != APART_FORMAT:
        if weights is not None:
            raise ArtifactError(f"{program.path} holds its weights itself; {weights} is of no use to it")
        return program
    path = Path(APART.format(program.path) if weights is None else weights)
    if not os.path.exists(path):  # which is quiet about folders that may not be read
        raise ArtifactError(
            f"{program.path} was compiled with separate weights, and there is no {path}; "
            "put them there, or in Python name their file: load(..., weights=FILE)"
        )
    store = open_archive(path)
    if store.comment != WEIGHTS_PREFIX + hash_of_weights(manifest).encode():
        raise ArtifactError(f"{path} does not hold the weights that {program.path} was compiled with")
    return store


def hash_of_weights(manifest: Manifest) -> str:
    """One for the weights of all builds, of their hashes."""
    hashes = [str(manifest["hashes"].get(build["weights"])) for build in manifest["builds"]]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _manifest(program: Archive) -> dict[str, Any]:
    path = program.path
    if MANIFEST not in program.members:
        raise ArtifactError(f"{path} is not a graphopt artifact: it has no {MANIFEST}")
    if (size := len(program.members[MANIFEST])) > _MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{path}: {MANIFEST} has {size} bytes, which no model needs")
    raw = bytes(program.read(MANIFEST))
    if program.comment != COMMENT_PREFIX + hashlib.sha256(raw).hexdigest().encode():
        raise ArtifactError(
            f"{path}: {MANIFEST} is damaged (its hash differs); copy or build the artifact again"
        )
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: {MANIFEST} is not JSON: {error}") from error
    return _check_format(manifest, path)


def _check_format(manifest: Any, path: Path) -> dict[str, Any]:
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ArtifactError(f"{path}: {MANIFEST} names no format")
    if manifest["format"] not in FORMATS:
        raise ArtifactError(
            f"{path} has format {manifest['format']!r}, this runtime reads {FORMATS[0]} to {FORMATS[-1]}; "
            "update graphopt-runtime or build the artifact again"
        )
    _check_keys(manifest, _REQUIRED_KEYS, MANIFEST, path)
    if not manifest["builds"]:
        raise ArtifactError(f"{path}: {MANIFEST} lists no builds")
    for build in manifest["builds"]:
        _check_keys(build if isinstance(build, dict) else {}, _REQUIRED_OF_BUILDS, "a build", path)
    return manifest


def _check_keys(found: Manifest, required: Mapping[str, type], what: str, path: Path) -> None:
    for key, kind in required.items():
        if not isinstance(found.get(key), kind):
            raise ArtifactError(f"{path}: {what} lacks {key!r}, or it is not a {kind.__name__}")


def _check_members(manifest: Manifest, program: Archive, store: Archive) -> None:
    libraries, weights = ({build[role] for build in manifest["builds"]} for role in ("library", "weights"))
    if store is program:
        _check_names(program, libraries | weights, manifest)
    else:
        _check_names(program, libraries, manifest)
        _check_names(store, weights, manifest)
    for build in manifest["builds"]:
        size, expected = len(store.members[build["weights"]]), build["weights_bytes"]
        if size != expected:
            raise ArtifactError(
                f"{store.path}: {build['weights']} has {size} bytes, the manifest says {expected}"
            )
        if CODING in build:
            _check_coding(build, size, store.path)


def _check_names(archive: Archive, used: set[str], manifest: Manifest) -> None:
    """All that is used is there, and nothing else."""
    present = set(archive.members) - {MANIFEST}
    if missing := sorted(used - present):
        raise ArtifactError(f"{archive.path}: members are missing: {', '.join(missing)}")
    if unknown := sorted(present - used):
        raise ArtifactError(f"{archive.path}: members that no build uses: {', '.join(unknown)}")
    if nameless := sorted(used - set(manifest["hashes"])):
        raise ArtifactError(f"{archive.path}: members without a hash in the manifest: {', '.join(nameless)}")


def _check_coding(build: Manifest, size: int, path: Path) -> None:
    try:
        parse_coding(build[CODING], size)
    except ValueError as error:
        raise ArtifactError(f"{path}: the coding of {build['weights']} makes no sense: {error}") from error


def _check_hash(archive: Archive, name: str, manifest: Manifest) -> None:
    if hashlib.sha256(archive.read(name)).hexdigest() != manifest["hashes"][name]:
        raise ArtifactError(
            f"{archive.path}: {name} is damaged (its hash differs from the manifest's); "
            "copy or build the artifact again"
        )
