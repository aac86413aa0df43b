"""What models compute next to what they should: tolerances, ONNX Runtime as the reference, and metrics on data."""
