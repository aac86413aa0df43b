"""Boards that run models for us: a file names them, and each runs the program of `graphopt device`.

[pi4]                               # devices.toml
address = "192.168.1.20:7420"
token = "..."                       # what GRAPHOPT_DEVICE_TOKEN was there; loopback needs none
target = "aarch64:cortex-a72"       # which build of an artifact it gets, where there are several
"""

from __future__ import annotations

import socket
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.arrays import Feeds
from graphopt.artifacts.device import RemoteModel, Session
from graphopt.errors import DeviceError
from graphopt_runtime.artifact import Manifest

PORT = 7420

PLACES = (Path("devices.toml"), Path.home() / ".config" / "graphopt" / "devices.toml")
"""Where the file is looked for."""

TIMEOUT_S = 600.0
"""How long an answer may take."""

WARMUP_RUNS = 3


@dataclass(frozen=True)
class Device:
    """Where a device is, and what it is."""

    name: str
    host: str
    port: int
    token: str = ""
    target: str = ""

    def connect(self) -> Session:
        """A session, which the device gives a process of its own. Raises DeviceError."""
        try:
            connection = socket.create_connection((self.host, self.port), TIMEOUT_S)
        except OSError as error:
            raise DeviceError(f"{self.name}: cannot connect to {self.host}:{self.port}: {error}") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Session(
            self.name, connection.makefile("rb"), connection.makefile("wb"), connection.close, self.token
        )

    def choose(self, builds: Sequence[Manifest], path: Path) -> Manifest:
        """The build for this device: the only one, or that for its target. Raises DeviceError where it is not there."""
        if len(builds) == 1 and not self.target:
            return builds[0]
        names = [str(build["target"].get("name")) for build in builds]
        if self.target not in names:
            wanted = self.target or "a target that devices.toml does not tell"
            raise DeviceError(f"{path} has builds for {', '.join(names)}; {self.name} wants {wanted}")
        return builds[names.index(self.target)]

    def load(self, path: Path, threads: int) -> RemoteModel:
        """An artifact, ready to run there. Raises ArtifactError and DeviceError."""
        return RemoteModel(path, self.connect(), self.choose, threads)


def find_devices(texts: str, file: Path | None = None) -> list[Device]:
    """Devices of one kind, separated by commas, as `find_device` finds each. Raises DeviceError."""
    found = [find_device(text, file) for text in texts.split(",")]
    places = Counter((device.host, device.port) for device in found)
    (host, port), times = places.most_common(1)[0]
    if times > 1:
        raise DeviceError(f"{host}:{port} is given {times} times; a board measures one candidate at a time")
    if len(targets := sorted({device.target for device in found if device.target})) > 1:
        raise DeviceError(
            f"{texts} are of several kinds ({', '.join(targets)}); times of one say nothing of another"
        )
    return found


def find_device(text: str, file: Path | None = None) -> Device:
    """The device of a name in the file of devices, or at HOST:PORT. Raises DeviceError."""
    if "," in text:
        raise DeviceError(f"{text} are several devices; only tune takes more than one")
    known = read_devices(file)
    if text in known:
        return known[text]
    host, _, port = text.rpartition(":")
    if host and port.isdecimal():
        return Device(text, host, int(port))
    places = ", ".join(str(place) for place in ([file] if file else PLACES))
    raise DeviceError(f"no device is called {text!r} in {places}; give HOST:PORT, or add it there")


def read_devices(file: Path | None = None) -> Mapping[str, Device]:
    """The devices of a file, by default of the first that is there. Raises DeviceError for one that cannot be understood."""
    path = file or next((place for place in PLACES if place.is_file()), None)
    if path is None:
        return {}
    try:
        entries = tomllib.loads(path.read_text())
        return {name: _device(name, entry) for name, entry in entries.items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeviceError(f"{path} is no list of devices: {error}") from error


def _device(name: str, entry: Mapping[str, Any]) -> Device:
    host, _, port = str(entry["address"]).partition(":")
    if unknown := sorted(entry.keys() - {"address", "token", "target"}):
        raise ValueError(f"{name} has the unknown keys {', '.join(unknown)}")
    token, target = str(entry.get("token", "")), str(entry.get("target", ""))
    return Device(name, host, int(port or PORT), token, target)


@dataclass(frozen=True)
class DeviceTimes:
    """How long runs of a model take on a device, in milliseconds, measured there."""

    model: str
    device: str
    threads: int
    times_ms: Sequence[float]

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        p10, median, p90 = (float(np.percentile(self.times_ms, percent)) for percent in (10, 50, 90))
        return {
            "model": self.model,
            "device": self.device,
            "threads": self.threads,
            "runs": len(self.times_ms),
            "median_ms": median,
            "p10_ms": p10,
            "p90_ms": p90,
        }


def measure(name: str, device: Device, model: RemoteModel, feeds: Feeds, runs: int) -> DeviceTimes:
    """Time a model on a device, one run after the other."""
    model.time(feeds, WARMUP_RUNS)
    times = [1e3 * model.time(feeds) for _ in range(runs)]
    return DeviceTimes(name, device.name, model.threads, times)
