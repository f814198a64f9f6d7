"""The networks of a generation as ONNX graphs, for a browser."""

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from modules import VAE_Model

LEAST_SIZE = 64  # of weights that are stored in 16 bits


class First(nn.Module):
    """What is known from the first frame and its pose, which is the same for all frames."""

    def __init__(self, model: VAE_Model):
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, first_pose: Tensor) -> Tensor:
        feature = self.model.frame_transformation(first)
        return self.model.Decoder_Fusion.from_first_frame(
            feature, self.model.label_transformation(first_pose)
        )


class Step(nn.Module):
    """The next frame."""

    def __init__(self, model: VAE_Model):
        super().__init__()
        self.model = model

    def forward(self, last: Tensor, first: Tensor, known: Tensor, pose: Tensor, z: Tensor) -> Tensor:
        model = self.model
        features = model.frame_transformation(last), model.label_transformation(pose)
        return model.Generator(model.Decoder_Fusion(*features, z, known), first)


def graphs(model: VAE_Model, height: int, width: int) -> dict[str, bytes]:
    """`first` and `step` as ONNX files, with weights in 16 bits.

    Args:
        model: of the unet architecture, in eval mode on the CPU.
        height, width: of its frames.
    """
    # Each input is a tensor of its own, because the exporter takes equal objects for one input.
    last, first_frame, first_pose, pose = torch.zeros(4, 1, 3, height, width).unbind()
    z = torch.zeros(1, *model.latent_shape(height, width))
    first, step = First(model).eval(), Step(model).eval()
    with torch.no_grad():
        known = first(first_frame, first_pose)
    inputs = {"last": last, "first": first_frame, "known": known, "pose": pose, "z": z}
    return {
        "first": _graph(first, {"first": first_frame, "first_pose": first_pose}, "known"),
        "step": _graph(step, inputs, "next"),
    }


def _graph(network: nn.Module, inputs: dict[str, Tensor], output: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own future
        program = torch.onnx.export(
            network, tuple(inputs.values()), dynamo=True, verbose=False,
            input_names=list(inputs), output_names=[output],
        )  # fmt: skip
        program.save(buffer)
    graph = onnx.load_from_string(buffer.getvalue())
    _strip(graph)
    _halve_weights(graph)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what only people read, such as the lines of code that a node is from."""
    for node in graph.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for entries in (graph.metadata_props, graph.graph.metadata_props, graph.graph.value_info):
        del entries[:]


def _halve_weights(graph: onnx.ModelProto) -> None:
    """Store large weights in 16 bits; they become 32 bits again when the graph is loaded."""
    casts = []
    for weight in list(graph.graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > LEAST_SIZE:
            short = f"{weight.name}_16"
            casts.append(helper.make_node("Cast", [short], [weight.name], to=onnx.TensorProto.FLOAT))
            graph.graph.initializer.remove(weight)
            graph.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), short))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
