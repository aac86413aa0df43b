"""ONNX models as differentiable torch modules."""

from graphopt.training.executor.module import TorchModel, write_back

__all__ = ["TorchModel", "write_back"]
