"""Writing artifacts."""

import json
import os
import resource
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphopt.artifacts import artifact
from graphopt.artifacts.artifact import Build
from graphopt.artifacts.coding import Segment
from graphopt.errors import OutputError
from graphopt_runtime.artifact import APART_FORMAT, CODED_FORMAT, FORMAT, open_artifact

MANIFEST = {"name": "m", "target": {}, "variants": []}


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    [complete] = artifact.write(path, [Build(MANIFEST, b"code", b"weights")])
    opened = open_artifact(path)
    assert opened.manifest == complete
    assert complete["weights_bytes"] == 7
    assert (bytes(opened.library), bytes(opened.weights)) == (b"code", b"weights")


def test_builds_for_several_targets_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    names = ["x86-64-v3", "x86-64-v4"]
    builds = [
        Build({**MANIFEST, "target": {"name": name}}, f"code of {name}".encode(), name[-2:].encode())
        for name in names
    ]
    artifact.write(path, builds)
    for index, name in enumerate(names):
        opened = open_artifact(path, choose=lambda builds, path, index=index: builds[index])  # type: ignore[misc]
        assert opened.manifest["target"]["name"] == name
        assert bytes(opened.library) == f"code of {name}".encode()
        assert bytes(opened.weights) == name[-2:].encode()
    assert [build["target"]["name"] for build in open_artifact(path).builds] == names
    assert open_artifact(path).manifest["target"]["name"] == names[-1]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.gopt", tmp_path / "b.gopt"
    artifact.write(first, [Build({**MANIFEST, "report": {"a": 1, "b": 2}}, b"code", b"weights")])
    artifact.write(second, [Build({"report": {"b": 2, "a": 1}, **MANIFEST}, b"code", b"weights")])
    assert first.read_bytes() == second.read_bytes()


def test_members_are_stored_aligned_and_undated(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    artifact.write(path, [Build(MANIFEST, b"c" * 5000, b"")])
    assert all(span.start % 4096 == 0 for span in open_artifact(path).program.members.values())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_weights_are_streamed_from_a_file(tmp_path: Path) -> None:
    source, path, other = tmp_path / "weights", tmp_path / "m.gopt", tmp_path / "n.gopt"
    source.write_bytes(os.urandom(3 << 20))
    artifact.write(path, [Build(MANIFEST, b"code", source)])
    artifact.write(other, [Build(MANIFEST, b"code", source.read_bytes())])
    assert path.read_bytes() == other.read_bytes()


def test_members_with_zip64_headers_stay_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_ZIP64_FROM_BYTES", 5)
    path = tmp_path / "m.gopt"
    artifact.write(path, [Build(MANIFEST, b"code", b"weights")])
    opened = open_artifact(path)
    assert bytes(opened.weights) == b"weights"
    assert opened.program.members["weights.bin"].start % 4096 == 0


@pytest.mark.slow
def test_weights_beyond_four_gigabytes(tmp_path: Path) -> None:
    source, path = tmp_path / "weights", tmp_path / "m.gopt"
    size = (4 << 30) + 5
    with source.open("wb") as file:
        file.truncate(size - 3)
        file.seek(size - 3)
        file.write(b"end")
    artifact.write(path, [Build(MANIFEST, b"code", source)])
    assert bytes(open_artifact(path).weights[-3:]) == b"end"


def test_a_new_artifact_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    path.write_bytes(b"old")
    artifact.write(path, [Build(MANIFEST, b"code", b"weights")])
    assert open_artifact(path).manifest["name"] == "m"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gopt"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "m.gopt", tmp_path / "plain"
    artifact.write(path, [Build(MANIFEST, b"code", b"weights")])
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_folder_that_cannot_take_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere/m.gopt: No such file"):
        artifact.write(tmp_path / "nowhere" / "m.gopt", [Build(MANIFEST, b"code", b"weights")])
    (tmp_path / "m.gopt").mkdir()
    with pytest.raises(OutputError, match="no regular file"):
        artifact.write(tmp_path / "m.gopt", [Build(MANIFEST, b"code", b"weights")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gopt"]


@pytest.mark.parametrize("apart", [False, True])
def test_a_full_disk_leaves_the_old_files_and_nothing_else(apart: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    old = [path, artifact.weights_path(path)] if apart else [path]
    for each in old:
        each.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*m.gopt.*: File too large"):
            artifact.write(path, [Build(MANIFEST, b"code", bytes(100000))], apart)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {each.read_bytes() for each in old} == {b"old"}
    assert set(tmp_path.iterdir()) == set(old)


def test_other_failures_leave_nothing_and_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON serializable"):
        artifact.write(tmp_path / "m.gopt", [Build({**MANIFEST, "report": {1}}, b"code", b"weights")])
    assert list(tmp_path.iterdir()) == []


def few_values() -> Build:
    weights = np.random.default_rng(0).integers(0, 9, 5000).astype(np.float32).tobytes()
    return Build(MANIFEST, b"code", weights, [Segment(0, len(weights), 4)])


def test_weights_of_few_values_are_coded(tmp_path: Path) -> None:
    path, build = tmp_path / "m.gopt", few_values()
    [complete] = artifact.write(path, [build])
    opened = open_artifact(path)
    assert complete["weights_bytes"] == len(opened.store.read("weights.bin")) < 0.2 * len(build.weights)  # type: ignore[arg-type]
    assert opened.weights == build.weights
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("manifest.json"))["format"] == CODED_FORMAT


def test_other_artifacts_have_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    artifact.write(path, [Build(MANIFEST, b"code", bytes(range(256)), [Segment(0, 256, 1)])])
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("manifest.json"))["format"] == FORMAT


@pytest.mark.parametrize("weights", [few_values(), Build(MANIFEST, b"code", bytes(range(256)))])
def test_weights_may_lie_apart(weights: Build, tmp_path: Path) -> None:
    path, whole = tmp_path / "m.gopt", tmp_path / "whole.gopt"
    [described] = artifact.write(path, [weights], apart=True)
    artifact.write(whole, [weights])
    opened = open_artifact(path)
    assert sorted(opened.program.members) == ["library.so", "manifest.json"]
    assert sorted(opened.store.members) == ["weights.bin"]
    assert (opened.manifest, opened.weights) == (described, open_artifact(whole).weights)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("manifest.json"))["format"] == APART_FORMAT


def test_weights_of_several_builds_lie_apart_together(tmp_path: Path) -> None:
    path = tmp_path / "m.gopt"
    builds = [Build({**MANIFEST, "target": {"name": name}}, b"code", name.encode()) for name in ("v3", "v4")]
    artifact.write(path, builds, apart=True)
    assert sorted(open_artifact(path).store.members) == ["weights.v3.bin", "weights.v4.bin"]
