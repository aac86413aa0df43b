"""Lowering of ONNX operators to TVM."""
