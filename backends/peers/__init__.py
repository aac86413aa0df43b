"""The backends that ``compare`` and ``bench`` can run: our artifacts, and the peers to measure them by."""

from graphopt.backends.peers.artifact import ArtifactBackend
from graphopt.backends.peers.base import Backend
from graphopt.backends.peers.onnxruntime import OnnxRuntimeBackend
from graphopt.backends.peers.openvino import OpenVinoBackend
from graphopt.backends.peers.torch import TorchBackend

BACKENDS: dict[str, Backend] = {
    "graphopt": ArtifactBackend(),
    "onnxruntime": OnnxRuntimeBackend(),
    "openvino": OpenVinoBackend(),
    "torch": TorchBackend(),
}

__all__ = ["BACKENDS", "Backend"]
