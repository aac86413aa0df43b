"""OpenVINO's CPU plugin, pinned to float32: left alone it computes in bfloat16 where the CPU can."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.arrays import Feeds
from graphopt.backends.peers.base import missing
from graphopt.timing.worker import Runner

# OpenVINO's names of element types -> numpy's.
PRECISIONS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class OpenVinoBackend:
    """Runs ONNX models with the latency hint; inputs keep the shapes of the feeds."""

    precision: str = "f32"

    def available(self) -> str | None:
        return missing(("openvino",), "pip install 'graphopt[openvino]'")

    def load(self, model_path: Path, threads: int) -> Runner:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return _Runner(core, core.read_model(model_path), options)


class _Runner:
    """Compiles on the first run, when the feeds have told every free dimension."""

    def __init__(self, core: Any, model: Any, options: dict[str, Any]) -> None:
        self._core, self._model, self._options = core, model, options
        self._request: Any = None
        if not model.is_dynamic():
            self._compile()

    @property
    def precision(self) -> str:
        found = self._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return PRECISIONS.get(found, str(found))

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        if self._request is None:
            self._model.reshape({name: list(array.shape) for name, array in feeds.items()})
            self._compile()
        results = self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        outputs = zip(self._names, results.values(), strict=True)
        return {name: array for names, array in outputs for name in names}

    def _compile(self) -> None:
        compiled = self._core.compile_model(self._model, "CPU", self._options)
        self._names = [output.get_names() for output in compiled.outputs]
        self._request = compiled.create_infer_request()
