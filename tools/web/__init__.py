"""The page on which the skeleton is dragged: its scripts, the networks as ONNX, and the runtime."""
