"""A model of more than 2 GB is loaded, optimised and saved without holding it in memory several times."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

pytestmark = pytest.mark.slow

SIDE, COUNT = 8192, 9
BYTES = SIDE * SIDE * 4
ALLOWED = 2.5
"""Times the size of the weights that the process may take."""

OPTIMISE = """
import resource, sys
from graphopt.model import load, normalise, save
from graphopt.passes import preset
from graphopt.rewriting.pipeline import run

model = load(sys.argv[1])
normalise(model)
run(model, preset("O2"))
save(model, sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Removed at once, where pytest's own would stay for three runs."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def write_large_model(path: Path) -> None:
    """A chain of products and identities; weight ``i`` has ``i`` in its corner and zeros, which the file system
    does not store, elsewhere."""
    text = f'<ir_version: 8, opset_import: ["": 17]> agraph (float[1,{SIDE}] v0) => (float[1,{SIDE}] v{COUNT}) {{ '
    text += " ".join(f"p{i} = MatMul(v{i}, w{i}) v{i + 1} = Identity(p{i})" for i in range(COUNT)) + " }"
    model = onnx.parser.parse_model(text)
    with (path.parent / "weights").open("wb") as file:
        file.truncate(COUNT * BYTES)
        for i in range(COUNT):
            file.seek(i * BYTES)
            file.write(np.float32(i + 1).tobytes())
            model.graph.initializer.append(external_tensor(f"w{i}", i * BYTES))
    path.write_bytes(model.SerializeToString())


def external_tensor(name: str, offset: int) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[SIDE, SIDE])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights", "offset": offset, "length": BYTES}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_a_model_of_more_than_two_gigabytes(folder: Path) -> None:
    source, result = folder / "large.onnx", folder / "small.onnx"
    write_large_model(source)
    done = subprocess.run(
        [sys.executable, "-c", OPTIMISE, str(source), str(result)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < ALLOWED * COUNT * BYTES
    assert (folder / "small.onnx.data").stat().st_size >= COUNT * BYTES > 2**31
    saved = onnx.load(result, load_external_data=False)
    assert [node.op_type for node in saved.graph.node] == ["MatMul"] * COUNT
    corners = [corner(folder, tensor) for tensor in saved.graph.initializer]
    assert sorted(corners) == list(range(1, COUNT + 1))


def corner(folder: Path, tensor: onnx.TensorProto) -> float:
    place = {entry.key: entry.value for entry in tensor.external_data}
    array = np.memmap(folder / place["location"], np.float32, "r", int(place.get("offset", 0)), (1,))
    return float(array[0])
