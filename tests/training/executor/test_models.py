"""Whole models: those that ship and real ones give what ONNX Runtime does, gradients are right, and a step survives the way back."""

import wave
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image

from graphopt.accuracy.verify import compare, reference
from graphopt.compiling.presets import run_preset
from graphopt.feeds.random_feeds import random_feeds
from graphopt.model import load, normalise, save
from graphopt.rewriting.pipeline import Context
from graphopt.training.executor import TorchModel, write_back
from tests.conftest import ZOO_MODELS
from tests.training.executor.harness import run

TOLERANCE = 1e-4
SHIPPED = sorted((Path(__file__).parents[3] / "models").glob("*.onnx"))
INTEGER = {"shufflenet-v2-12-int8", "mobilenet_v2_1.0_224_qdq"}
CUSTOM = {"superres_prepost_op18"}
FLOAT = [path for path in ZOO_MODELS if path.stem not in INTEGER | CUSTOM]
SIZES = {"sequence": 576, "H": 24, "W": 20}
FRAME, WHERE, RATE = 576, 24_000, 16_000

Feeds = Mapping[str, np.ndarray]


def prepared(path: Path, preset: str) -> ir.Model:
    model = load(path)
    normalise(model)
    run_preset(model, preset, (), Context())
    return model


def random(path: Path) -> Feeds:
    return random_feeds(load(path), dims=SIZES, size=16)


def speech(path: Path) -> Feeds:
    with wave.open(str(path.parents[1] / "data/media/speech_16k.wav")) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    frame = samples[WHERE : WHERE + FRAME].astype(np.float32)[None] / 32768
    return {"input": frame, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(RATE)}


def text(path: Path) -> Feeds:
    image = Image.open(path.parents[1] / "data/media/ch_en_num.jpg").convert("RGB").resize((320, 320))
    pixels = (np.asarray(image, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return {"x": pixels.transpose(2, 0, 1)[None].astype(np.float32)}


REAL: dict[str, Callable[[Path], Feeds]] = {
    "ch_PP-OCRv3_det_infer": text,
    "silero_vad_16k_op15": speech,
}
"""Models that end in a sigmoid and give 1e-6 for noise, of which ONNX Runtime's own sigmoid is some percent wrong."""


def assert_equal(path: Path, preset: str) -> None:
    feeds = REAL.get(path.stem, random)(path)
    verdict = compare(reference(path)(feeds), run(TorchModel(prepared(path, preset)), feeds))
    assert verdict.max_rel_err <= TOLERANCE, verdict


@pytest.mark.parametrize("preset", ["O0", "O1", "O2"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_models(path: Path, preset: str) -> None:
    assert_equal(path, preset)


@pytest.mark.zoo
@pytest.mark.parametrize("preset", ["O0", "O1", "O2"])
@pytest.mark.parametrize("path", FLOAT, ids=lambda path: path.stem)
def test_zoo(path: Path, preset: str) -> None:
    assert_equal(path, preset)


@pytest.mark.zoo
def test_a_quantised_model_operator_by_operator(zoo: Path) -> None:
    """On ONNX Runtime's own inputs of each node; a tie may be rounded otherwise, which is one step."""
    model = prepared(zoo / "models" / "mobilenet_v2_1.0_224_qdq.onnx", "O1")
    feeds, module = random_feeds(model), TorchModel(model)
    copy = model.clone()
    names = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(v for node in copy.graph for v in node.outputs if v.name not in names)
    known = reference(copy)(feeds) | dict(feeds)
    tensors = {name: torch.from_numpy(array) for name, array in known.items()}
    with torch.no_grad():
        for node in model.graph:
            name = node.outputs[0].name or ""
            given = {v.name: tensors[v.name] for v in node.inputs if v is not None and v.name in tensors}
            found = module(given, [name])[name].numpy().astype(np.float64)
            steps = 1 if node.op_type == "QuantizeLinear" else TOLERANCE * np.abs(known[name]).max()
            assert np.abs(found - known[name]).max() <= steps, node


@pytest.mark.parametrize("name", ["digits_cnn", "digits_recurrent", "digits_transformer"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Along random directions, in float64."""
    model = prepared(next(path for path in SHIPPED if path.stem == name), "O1")
    module = TorchModel(model, single=torch.float64)
    feeds = {
        key: torch.from_numpy(array).to(torch.float64 if array.dtype.kind == "f" else torch.int64)
        for key, array in random_feeds(model, dims={"N": 2}).items()
    }
    names, values = zip(*module.named_parameters(), strict=True)
    assert len(names) > 5
    generator = torch.Generator().manual_seed(0)
    weighting = torch.randn(2, 10, generator=generator, dtype=torch.float64)

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (feeds,))
        return (next(iter(found.values())) * weighting).sum()

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


@pytest.mark.parametrize("preset", ["O0", "O2"])
def test_a_step_survives_the_way_back(preset: str, tmp_path: Path) -> None:
    model = prepared(next(path for path in SHIPPED if path.stem == "digits_depthwise"), preset)
    module = TorchModel(model, batch_statistics=True).train()
    images = torch.rand(16, 1, 8, 8) * 16
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    before = module.eval()({"image": images})
    (probabilities,) = module.train()({"image": images}).values()
    torch.nn.functional.nll_loss(probabilities.clamp_min(1e-6).log(), torch.arange(16) % 10).backward()
    optimizer.step()
    write_back(module.eval(), model)
    save(model, tmp_path / "trained.onnx")
    feeds = {"image": images.numpy()}
    after = run(module, feeds)
    verdict = compare(reference(load(tmp_path / "trained.onnx"))(feeds), after)
    assert verdict.max_rel_err <= TOLERANCE
    moved = [np.abs(after[name] - before[name].detach().numpy()).max() for name in after]
    assert max(moved) > 100 * TOLERANCE
