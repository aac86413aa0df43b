"""Targets: from an ONNX graph to machine code."""
