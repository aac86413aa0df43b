"""ONNX Runtime's CPU execution provider, fully optimised."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from graphopt.arrays import Feeds
from graphopt.backends.peers.base import missing
from graphopt.timing.worker import Runner


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Runs ONNX models; threads spin between runs, which is ONNX Runtime's default."""

    def available(self) -> str | None:
        return missing(("onnxruntime",), "pip install onnxruntime")

    def load(self, model_path: Path, threads: int) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        return _Runner(onnxruntime.InferenceSession(model_path, options, providers), model_path)


class _Runner:
    def __init__(self, session: Any, model_path: Path) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._model_path = model_path

    @property
    def precision(self) -> str:
        """The dtype of most weights: ONNX Runtime computes in the precision of the model."""
        model = onnx.load(self._model_path, load_external_data=False)
        return weight_dtype(model)

    def run(self, feeds: Feeds) -> Mapping[str, Any]:
        return dict(zip(self._outputs, self._session.run(None, dict(feeds)), strict=True))


def weight_dtype(model: onnx.ModelProto) -> str:
    """The numpy name of the dtype that most initializer elements have; float32 for a model without any."""
    elements: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        count = 1
        for dim in tensor.dims:
            count *= dim
        elements[tensor.data_type] += count
    if not elements:
        return "float32"
    return str(onnx.helper.tensor_dtype_to_np_dtype(elements.most_common(1)[0][0]))
