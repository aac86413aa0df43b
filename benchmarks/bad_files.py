"""Files that are wrong in one way each, for `bad_inputs.py`: models, artifacts and arrays."""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt import api
from graphopt.artifacts import artifact
from graphopt_runtime.artifact import CODING, open_artifact

HEADER = '<ir_version: 8, opset_import: ["": 18, "local.tools": 1]>\n'
RELU = "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
FREE = "g (float[batch,seq,4] x) => (float[batch,seq,4] y) { y = Relu(x) }"


def model(path: Path, text: str, **weights: np.ndarray[Any, Any]) -> Path:
    """A model from the text of its graph."""
    content = onnx.parser.parse_model(HEADER + text)
    content.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    path.write_bytes(content.SerializeToString())
    return path


def dense(path: Path, value: float = 0.5) -> Path:
    """y = x @ w, 4 to 3."""
    weights = np.full((4, 3), value, np.float32)
    return model(path, "g (float[2,4] x) => (float[2,3] y) { y = MatMul(x, w) }", w=weights)


def two_layers(path: Path) -> Path:
    """y = relu(x @ w) @ v, 4 to 8 to 3."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 8)), "v": rng.standard_normal((8, 3))}
    text = "g (float[N,4] x) => (float[N,3] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    return model(path, text, **{name: array.astype(np.float32) for name, array in weights.items()})


def slow(path: Path) -> Path:
    """A chain of MatMuls of ever new sizes, which takes a while to compile."""
    sizes = [96 + 8 * step for step in range(60)]
    names = ["x", *(f"v{step}" for step in range(1, len(sizes) - 1)), "y"]
    lines = [f"{names[step + 1]} = MatMul({names[step]}, w{step})" for step in range(len(sizes) - 1)]
    weights = {
        f"w{step}": np.zeros((sizes[step], sizes[step + 1]), np.float32) for step in range(len(sizes) - 1)
    }
    text = f"g (float[64,{sizes[0]}] x) => (float[64,{sizes[-1]}] y) {{ {' '.join(lines)} }}"
    return model(path, text, **weights)


def external(path: Path, location: str) -> Path:
    """A model whose weights are in `location`, as the file says."""
    dense(path)
    content = onnx.load(path)
    tensor = content.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(content.SerializeToString())
    return path


def twice_the_same_output(path: Path) -> Path:
    """A model that lists one output twice."""
    content = onnx.parser.parse_model(HEADER + RELU)
    content.graph.output.append(content.graph.output[0])
    path.write_bytes(content.SerializeToString())
    return path


def one_node(path: Path, op: str, kind: int, shape: list[int], domain: str = "") -> Path:
    """A model of one operator with an input and an output of the same kind."""
    given = helper.make_tensor_value_info("x", kind, shape)
    result = helper.make_tensor_value_info("y", kind, shape)
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], name="odd", domain=domain)], "g", [given], [result]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local.tools", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def compiled(path: Path) -> Path:
    """A sound artifact of `dense`."""
    path.write_bytes(_sound())
    return path


@lru_cache
def _sound() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source = dense(Path(folder) / "m.onnx")
        return api.build(source, Path(folder) / "m.gopt", check=False).path.read_bytes()


def tampered(path: Path, member: str) -> Path:
    """An artifact with one bit of one member turned over."""
    compiled(path)
    content = bytearray(path.read_bytes())
    span = open_artifact(path).program.members[member]
    content[span.start + len(span) // 2] ^= 1
    path.write_bytes(content)
    return path


def foreign(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """An artifact with another manifest whose hash is right."""
    build = decoded(path)
    manifest = json.loads(json.dumps(build.manifest))
    change(manifest)
    artifact.write(path, [replace(build, manifest=manifest)])
    return path


def decoded(path: Path) -> artifact.Build:
    """The build of a sound artifact, with weights as they are decoded."""
    opened = open_artifact(compiled(path))
    manifest = {key: value for key, value in opened.manifest.items() if key != CODING}
    return artifact.Build(manifest, bytes(opened.library), bytes(opened.weights))


def without_weights(path: Path) -> Path:
    """An artifact whose weights lie apart, but not here."""
    artifact.write(path, [decoded(path)], apart=True)
    artifact.weights_path(path).unlink()
    return path


def with_weights_of_another(path: Path) -> Path:
    """An artifact next to weights that are not its own."""
    build, other = decoded(path), path.with_name("other.gopt")
    artifact.write(path, [build], apart=True)
    artifact.write(other, [replace(build, weights=b"others")], apart=True)
    artifact.weights_path(other).replace(artifact.weights_path(path))
    other.unlink()
    return path


def other_format(path: Path) -> Path:
    """An artifact of a format that does not exist yet."""
    compiled(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    members["manifest.json"] = json.dumps({**manifest, "format": 99}).encode()
    _write_zip(path, members)
    return path


def escaping_member(path: Path) -> Path:
    """An archive with a member that leaves its folder."""
    _write_zip(path, {"manifest.json": b"{}", "../library.so": b"x"})
    return path


def _write_zip(path: Path, members: dict[str, bytes]) -> None:
    digest = hashlib.sha256(members["manifest.json"]).hexdigest().encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            start = archive.start_dir + 30 + len(name) + 4
            padding = -start % 4096
            info.extra = (0xD935).to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
            archive.writestr(info, content)
        archive.comment = b"graphopt manifest sha256:" + digest


def pickled(path: Path) -> Path:
    """An .npz file with a Python object in it."""
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    return path


def array(path: Path, content: np.ndarray[Any, Any]) -> Path:
    """An .npy file."""
    np.save(path, content)
    return path
