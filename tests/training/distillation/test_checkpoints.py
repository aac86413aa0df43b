"""Files that learning goes on from."""

from pathlib import Path

import pytest
import torch

from graphopt.errors import DataError, OutputError
from graphopt.training.distillation import Checkpoint


def test_what_was_saved_last_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", "subject")
    assert checkpoint.load() is None
    for step in (1, 2):
        checkpoint.save({"step": step, "weights": {"a": torch.full((2,), float(step))}})
    found = checkpoint.load()
    assert found is not None
    assert found["step"] == 2
    assert found["weights"]["a"].tolist() == [2.0, 2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "c"
    Checkpoint(path, "one").save({})
    with pytest.raises(DataError, match="of other learning"):
        Checkpoint(path, "two").load()
    torch.save({"weights": 1}, path)
    with pytest.raises(DataError, match="no checkpoint"):
        Checkpoint(path, "one").load()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(DataError, match="no checkpoint, or damaged"):
        Checkpoint(tmp_path / "c", "one").load()


def test_a_truncated_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", "one")
    checkpoint.save({"weights": torch.zeros(1000)})
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-500])
    with pytest.raises(DataError, match="damaged"):
        checkpoint.load()


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "exploded"),)

    torch.save({"format": 1, "subject": "one", "content": Bomb()}, tmp_path / "c")
    with pytest.raises(DataError, match="no checkpoint, or damaged"):
        Checkpoint(tmp_path / "c", "one").load()
    assert not (tmp_path / "exploded").exists()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Checkpoint(tmp_path / "missing" / "c", "one").save({})
