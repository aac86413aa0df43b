"""Boards: the file that names them, and sessions over TCP with the program that they run."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphopt import api
from graphopt.artifacts import devices
from graphopt.artifacts.device import Session
from graphopt.artifacts.devices import PORT, Device, find_device, find_devices, measure, read_devices
from graphopt.backends.codegen.toolchain import device_program
from graphopt.backends.tune import in_model
from graphopt.backends.tune.protocol import Built
from graphopt.backends.tune.remote import RemoteMeasurer
from graphopt.backends.tune.shared import SharedMeasurer
from graphopt.errors import DeviceError
from graphopt.timing.tuning import Budget, Tuning
from tests.backends.tune.test_search import CRASHING
from tests.conftest import make_model

TOKEN = "a word"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with listening(tmp_path_factory.mktemp("board") / "device", "board") as device:
        yield device


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with listening(tmp_path_factory.mktemp("other") / "device", "other") as device:
        yield device


@contextmanager
def listening(program: Path, name: str) -> Iterator[Device]:
    """The program of this machine, listening on a port of its own choice."""
    program.write_bytes(device_program())
    program.chmod(0o700)
    environment = {**os.environ, "GRAPHOPT_DEVICE_TOKEN": TOKEN}
    with subprocess.Popen(
        [program, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"listening on port (\d+)\n", process.stdout.readline())
        assert found is not None
        yield Device(name, "127.0.0.1", int(found.group(1)), TOKEN)
        process.kill()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "m.gopt"
    api.build(negation(), path, "x86-64-v2,x86-64-v3", check=False)
    return path


def negation() -> ir.Model:
    return make_model("g (float[n,3] a, int64[1] k) => (float[n,3] b, int64[1] l) { b = Neg(a) l = Neg(k) }")


def test_a_model_runs_on_a_board(board: Device, tmp_path: Path) -> None:
    api.build(negation(), tmp_path / "m.gopt", dims={"n": [1, 4]}, check=False)
    a, k = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([7], np.int64)
    with board.load(tmp_path / "m.gopt", 2) as first, board.load(tmp_path / "m.gopt", 1) as second:
        for model in (first, second, first):
            b, negated = model.run(None, {"k": k, "a": a})
            np.testing.assert_array_equal(b, -a)
            np.testing.assert_array_equal(negated, -k)
        assert first.run(["b"], {"k": k, "a": a[:1]})[0].shape == (1, 3)
        times = measure("m", board, first, {"k": k, "a": a}, 5).to_json()
    assert times["runs"] == 5
    assert 0 < times["p10_ms"] <= times["median_ms"] <= times["p90_ms"]


def test_a_wrong_token_is_refused(board: Device) -> None:
    for token in ("", "another", "x" * 256):
        with pytest.raises(DeviceError, match="board: the token is wrong"):
            Device("board", board.host, board.port, token).connect()
    with pytest.raises(DeviceError, match="board: the model's process ended"):
        Device("board", board.host, board.port, "x" * 300).connect()


def test_nobody_answers() -> None:
    with pytest.raises(DeviceError, match=r"pi: cannot connect to 127\.0\.0\.1:1: "):
        Device("pi", "127.0.0.1", 1).connect()


def test_a_device_gets_the_build_for_its_target(board: Device, artifact: Path) -> None:
    feeds = {"a": np.zeros((1, 3), np.float32), "k": np.zeros(1, np.int64)}
    chosen = Device("board", board.host, board.port, TOKEN, "x86-64-v2")
    with chosen.load(artifact, 1) as model:
        assert model.manifest["target"]["name"] == "x86-64-v2"
        assert len(model.run(None, feeds)) == 2
    with pytest.raises(DeviceError, match="has builds for x86-64-v2, x86-64-v3; board wants a target"):
        board.choose([{"target": {"name": f"x86-64-v{i}"}} for i in (2, 3)], artifact)


def test_everywhere_needs_a_token() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRAPHOPT_DEVICE_TOKEN"}
    program = Path(os.environ.get("TMPDIR", "/tmp")) / f"graphopt-device-{os.getpid()}"
    program.write_bytes(device_program())
    program.chmod(0o700)
    try:
        for arguments, message in ((["--any", "--port", "0"], "--any needs a token"), (["--what"], "usage:")):
            done = subprocess.run(
                [program, *arguments], env=environment, capture_output=True, text=True, check=False
            )
            assert (done.returncode, message in done.stderr) == (2, True)
    finally:
        program.unlink()


def test_devices_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(
        '[pi4]\naddress = "10.0.0.5:99"\ntoken = "t"\ntarget = "aarch64"\n[pi5]\naddress = "pi5"\n'
    )
    monkeypatch.setattr(devices, "PLACES", (tmp_path / "nowhere", file))
    assert find_device("pi4") == Device("pi4", "10.0.0.5", 99, "t", "aarch64")
    assert find_device("pi5").port == PORT
    assert find_device("host:7") == Device("host:7", "host", 7)
    with pytest.raises(DeviceError, match=r"no device is called 'pi6' in .*devices\.toml"):
        find_device("pi6")
    assert read_devices(file).keys() == {"pi4", "pi5"}


def test_several_devices(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    targets = {"pi1": "aarch64", "pi2": "aarch64", "pc3": "x86-64-v3"}
    entries = [f'[{name}]\naddress = "10.0.0.{name[-1]}"\ntarget = "{t}"\n' for name, t in targets.items()]
    file.write_text("".join(entries))
    assert [device.name for device in find_devices("pi1,pi2", file)] == ["pi1", "pi2"]
    assert [device.name for device in find_devices("pi1,h:7", file)] == ["pi1", "h:7"]
    assert [device.name for device in find_devices("pi1", file)] == ["pi1"]
    with pytest.raises(DeviceError, match=r"of several kinds \(aarch64, x86-64-v3\)"):
        find_devices("pi1,pc3", file)
    with pytest.raises(DeviceError, match=r"10\.0\.0\.1:7420 is given 2 times"):
        find_devices("pi1,10.0.0.1:7420", file)
    with pytest.raises(DeviceError, match="only tune takes more than one"):
        find_device("pi1,pi2", file)


@pytest.mark.parametrize(
    "text", ["nonsense", "[a]", '[a]\naddress = "h:x"', "a = 1", '[a]\naddress = "h"\ncolour = "red"']
)
def test_what_is_no_list_of_devices(text: str, tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(text)
    with pytest.raises(DeviceError, match="is no list of devices"):
        read_devices(file)


def test_schedules_are_measured_on_a_board(
    board: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and in the model; the times come from there."""
    monkeypatch.setattr(in_model, "SECONDS", 0.0)
    monkeypatch.setattr(devices, "read_devices", lambda file: {"board": board})
    weights = np.eye(32, dtype=np.float32)
    model = make_model("g (float[1,8,32] a) => (float[1,8,32] b) { b = MatMul(a, w) }", w=weights)
    database = tmp_path / "db"
    done = api.tune(model, Tuning(database, Budget(4), threads=1, device="board"))
    assert done.trials == 4
    assert all(task.best_us > 0 for task in done.tasks)
    assert len(database.read_text().splitlines()) >= 5


@pytest.fixture
def crashing(tmp_path: Path) -> Built:
    source, library = tmp_path / "crash.c", tmp_path / "crash.so"
    source.write_text(CRASHING)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    return Built(library, [[64]] * 5, [[64]] * 5, 64, [1.0] * 4)


def test_a_candidate_that_crashes_there_fails_alone(board: Device, crashing: Built) -> None:
    with RemoteMeasurer(board.connect, 1) as timer:
        answers = list(timer.measure(crashing, [(1, 1), (2, 1), (4, 1)]))
        assert [answer is None for answer in answers] == [False, True, False]
        with pytest.raises(DeviceError):
            list(timer.measure(crashing, [(2, 1)] * 4))


def test_boards_share_out_the_candidates(
    board: Device, other: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_model, "SECONDS", 0.0)
    monkeypatch.setattr(devices, "read_devices", lambda file: {"board": board, "other": other})
    weights = np.eye(32, dtype=np.float32)
    model = make_model("g (float[1,8,32] a) => (float[1,8,32] b) { b = MatMul(a, w) }", w=weights)
    done = api.tune(model, Tuning(tmp_path / "db", Budget(6), threads=1, device="board,other"))
    assert done.trials == 6
    assert all(task.best_us > 0 for task in done.tasks)


def test_answers_keep_their_order_and_every_board_its_part(
    board: Device, other: Device, crashing: Built
) -> None:
    used: list[str] = []

    def connect(device: Device) -> Session:
        used.append(device.name)
        return device.connect()

    boards = [RemoteMeasurer(partial(connect, device), 1) for device in (board, other)]
    with SharedMeasurer(boards) as timer:
        answers = list(timer.measure(crashing, [(1, 1), (1, 1), (2, 1), (4, 1)]))
    assert [answer is None for answer in answers] == [False, False, True, False]
    assert {"board", "other"} == set(used)


def test_the_others_do_what_a_lost_board_leaves(board: Device, crashing: Built) -> None:
    gone = RemoteMeasurer(Device("gone", "127.0.0.1", 1).connect, 1)
    for count in (1, 2, 7):
        with SharedMeasurer([gone, RemoteMeasurer(board.connect, 1)]) as timer:
            for _ in range(2):
                answers = list(timer.measure(crashing, [(1, 1)] * count))
                assert len(answers) == count
                assert None not in answers
    with SharedMeasurer([gone, gone]) as timer, pytest.raises(DeviceError, match="gone: cannot connect"):
        list(timer.measure(crashing, [(1, 1)] * 7))
