"""The web demo: its scripts, the networks as ONNX, and the runtime."""
