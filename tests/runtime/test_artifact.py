"""Reading artifacts: every kind of damage has an error of its own."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt_runtime.archive import ALIGNMENT
from graphopt_runtime.artifact import (
    COMMENT_PREFIX,
    MANIFEST,
    open_artifact,
)
from graphopt_runtime.errors import ArtifactError
from graphopt_runtime.model import load

Members = list[tuple[str, bytes]]

LIBRARY, WEIGHTS = "library.so", "weights.bin"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


BUILD = {"target": {}, "variants": [], "weights_bytes": 4, "library": LIBRARY, "weights": WEIGHTS}


def members(**manifest_changes: Any) -> Members:
    """The members of a correct artifact, but for the changes of its manifest."""
    hashes = {LIBRARY: digest(b"code"), WEIGHTS: digest(b"1234")}
    manifest = {"format": 2, "builds": [BUILD], "hashes": hashes, **manifest_changes}
    return [(LIBRARY, b"code"), (WEIGHTS, b"1234"), (MANIFEST, json.dumps(manifest).encode())]


def forge(path: Path, contents: Members, **info_changes: Any) -> Path:
    """Writes a zip with aligned members, correct or not, whose comment fits its manifest."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents:
            info = zipfile.ZipInfo("x")
            info.filename = name
            padding = -(archive.start_dir + 30 + len(name.encode()) + 4) % ALIGNMENT
            info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)
            for key, value in info_changes.items():
                setattr(info, key, value)
            archive.writestr(info, data)
        archive.comment = COMMENT_PREFIX + digest(dict(contents).get(MANIFEST, b"")).encode()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gopt"


def test_a_correct_artifact_opens_in_place(path: Path) -> None:
    artifact = open_artifact(forge(path, members()))
    assert (bytes(artifact.library), bytes(artifact.weights)) == (b"code", b"1234")
    assert artifact.manifest["weights_bytes"] == 4


@pytest.mark.parametrize("name", [LIBRARY, WEIGHTS, MANIFEST])
def test_a_flipped_bit_in_any_member_is_found(write_add: Callable[..., Path], name: str) -> None:
    path = write_add()
    span = open_artifact(path).program.members[name]
    data = bytearray(path.read_bytes())
    data[span.start + len(span) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        open_artifact(path)


def test_unverified_weights_may_differ_but_nothing_else(write_add: Callable[..., Path]) -> None:
    path = write_add()
    spans = open_artifact(path).program.members
    data = bytearray(path.read_bytes())
    data[spans[WEIGHTS].start] ^= 1
    path.write_bytes(data)
    open_artifact(path, verify=False)
    data[spans[LIBRARY].start] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"library\.so is damaged"):
        open_artifact(path, verify=False)


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 0.5, -1])
def test_a_truncated_file_is_refused(write_add: Callable[..., Path], keep: float) -> None:
    path = write_add()
    data = path.read_bytes()
    size = int(keep * len(data)) if isinstance(keep, float) else keep
    path.write_bytes(data[:size])
    with pytest.raises(ArtifactError, match=r"truncated|is empty"):
        open_artifact(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*nowhere\.gopt: No such file"):
        open_artifact(tmp_path / "nowhere.gopt")
    with pytest.raises(ArtifactError, match="Is a directory"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "a/b", "..\\x", "..", ".", "other\0x"])
def test_names_that_leave_the_folder_are_refused(path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="leaves the archive's folder"):
        open_artifact(forge(path, [*members(), (name, b"x")]))


def test_compressed_members_are_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="is compressed"):
        open_artifact(forge(path, members(), compress_type=zipfile.ZIP_DEFLATED))


def test_encrypted_members_are_refused(path: Path) -> None:
    data = bytearray(forge(path, members()).read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="is encrypted"):
        open_artifact(path)


def test_unaligned_members_are_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="not aligned to 4096"):
        open_artifact(forge(path, members(), extra=b""))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members_are_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"'weights\.bin' exists twice"):
        open_artifact(forge(path, [*members(), (WEIGHTS, b"5678")]))


def directory_entries(data: bytearray) -> list[int]:
    offsets, start = [], data.find(b"PK\x01\x02")
    while start >= 0:
        offsets.append(start)
        start = data.find(b"PK\x01\x02", start + 4)
    return offsets


def patched_directory(path: Path, entry: int, field: int, value: int) -> Path:
    """Changes one 32-bit field of an entry of the directory."""
    data = bytearray(forge(path, members()).read_bytes())
    struct.pack_into("<I", data, directory_entries(data)[entry] + field, value)
    path.write_bytes(data)
    return path


HEADER_OFFSET, COMPRESSED_SIZE, SIZE = 42, 20, 24


def test_overlapping_members_are_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="overlaps another one"):
        open_artifact(patched_directory(path, 1, HEADER_OFFSET, 0))


def test_a_member_without_a_header_is_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="no header where the directory says"):
        open_artifact(patched_directory(path, 2, HEADER_OFFSET, 3 * ALIGNMENT - 10))
    with pytest.raises(ArtifactError, match="no header where the directory says"):
        open_artifact(patched_directory(path, 2, HEADER_OFFSET, 1 << 30))


def test_a_member_that_reaches_beyond_the_data_is_refused(path: Path) -> None:
    patched_directory(path, 2, SIZE, 1 << 20)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, directory_entries(data)[2] + COMPRESSED_SIZE, 1 << 20)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="reaches into the directory"):
        open_artifact(path)


@pytest.mark.parametrize("name", [LIBRARY, WEIGHTS])
def test_missing_members_are_named(path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=f"members are missing: {name}"):
        open_artifact(forge(path, [member for member in members() if member[0] != name]))


def test_another_zip_is_not_an_artifact(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        open_artifact(forge(path, [("hello.txt", b"hello")]))


def test_a_manifest_of_absurd_size_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt_runtime.artifact._MAX_MANIFEST_BYTES", 10)
    with pytest.raises(ArtifactError, match="bytes, which no model needs"):
        open_artifact(forge(path, members()))


def test_members_that_no_build_uses_are_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="that no build uses: extra"):
        open_artifact(forge(path, [*members(), ("extra", b"x")]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "has format 1, this runtime reads 2 to 4; update"),
        ({"format": None}, "has format None"),
        ({"hashes": []}, "lacks 'hashes'"),
        ({"builds": {}}, "lacks 'builds'"),
        ({"builds": []}, "lists no builds"),
        ({"builds": [BUILD, 1]}, "a build lacks 'target'"),
        ({"builds": [{**BUILD, "variants": None}]}, "a build lacks 'variants'"),
        ({"builds": [{**BUILD, "target": "native"}]}, "a build lacks 'target'"),
        ({"builds": [{**BUILD, "weights_bytes": 5}]}, "weights.bin has 4 bytes, the manifest says 5"),
        ({"builds": [{**BUILD, "coding": {}}]}, "the coding of weights.bin makes no sense"),
        ({"builds": [BUILD, {**BUILD, "weights": "w.bin"}]}, "members are missing: w.bin"),
        ({"builds": [{**BUILD, "library": MANIFEST}]}, "members are missing: manifest.json"),
        ({"hashes": {WEIGHTS: digest(b"1234")}}, "without a hash in the manifest: library.so"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        open_artifact(forge(path, members(**changes)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b"[]", "names no format"),
        (b"{}", "names no format"),
    ],
)
def test_manifests_that_are_no_manifests_are_refused(path: Path, text: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        open_artifact(forge(path, [*members()[:2], (MANIFEST, text)]))


@pytest.fixture
def apart(write_add: Callable[..., Path]) -> Path:
    """An artifact whose weights are in a file next to it."""
    return write_add(apart=True)


def weights_of(path: Path) -> Path:
    return path.with_name(path.name + ".weights")


def test_weights_apart_are_found_next_to_the_artifact_or_where_one_says(apart: Path, tmp_path: Path) -> None:
    expected = bytes(open_artifact(apart).weights)
    elsewhere = weights_of(apart).rename(tmp_path / "elsewhere")
    assert open_artifact(apart, weights=elsewhere).weights == expected
    with load(apart, weights=elsewhere) as model:
        model(np.zeros(64, np.float32))
    with pytest.raises(ArtifactError, match=r"there is no .*add.gopt.weights; put them there, or in Python"):
        open_artifact(apart)


def test_weights_of_another_compilation_are_refused(write_add: Callable[..., Path], apart: Path) -> None:
    other = write_add(name="other.gopt", weights=b"others", apart=True)
    with pytest.raises(
        ArtifactError, match=r"other.gopt.weights does not hold the weights that .*add.gopt was"
    ):
        open_artifact(apart, verify=False, weights=weights_of(other))


def test_programs_with_the_same_weights_may_share_them(write_add: Callable[..., Path], apart: Path) -> None:
    other = write_add(name="other.gopt", graphopt="0.2.0", apart=True)
    assert open_artifact(apart, weights=weights_of(other)).manifest["graphopt"] == "0.1.0"


def test_weights_that_cannot_be_read_are_reported(write_add: Callable[..., Path], apart: Path) -> None:
    weights_of(apart).unlink()
    weights_of(apart).mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read .*add.gopt.weights"):
        open_artifact(apart)
    with pytest.raises(ArtifactError, match="there is no xxx"):
        open_artifact(apart, weights="x" * 5000)


def test_damaged_weights_apart_are_found(apart: Path) -> None:
    store = open_artifact(apart).store
    data = bytearray(store.path.read_bytes())
    data[store.members[WEIGHTS].start] ^= 1
    store.path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"add.gopt.weights: weights\.bin is damaged"):
        open_artifact(apart)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["other"], r"members are missing: weights\.bin"),
        ([WEIGHTS, "other"], "members that no build uses: other"),
    ],
)
def test_other_members_beside_weights_are_refused(apart: Path, names: list[str], message: str) -> None:
    comment = open_artifact(apart).store.comment
    with zipfile.ZipFile(forge(weights_of(apart), [(name, b"x") for name in names]), "a") as archive:
        archive.comment = comment
    with pytest.raises(ArtifactError, match=rf"add.gopt.weights: {message}"):
        open_artifact(apart)


def test_an_artifact_with_its_own_weights_takes_no_others(
    write_add: Callable[..., Path], apart: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"whole.gopt holds its weights itself"):
        open_artifact(write_add(name="whole.gopt"), weights=weights_of(apart))
