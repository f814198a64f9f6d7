"""The networks of a generation as ONNX graphs, for a browser."""

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from modules import VAE_Model
from modules.cvae import Reference

MIN_HALF_SIZE = 64  # weights with more values are stored in 16 bits


class ReferenceFeatures(nn.Module):
    """Features of the reference frame and its pose, computed once per video."""

    def __init__(self, model: VAE_Model):
        super().__init__()
        self.model = model

    def forward(self, reference: Tensor, reference_pose: Tensor) -> Tensor:
        return self.model.reference(reference, reference_pose).features


class Step(nn.Module):
    """The next frame."""

    def __init__(self, model: VAE_Model):
        super().__init__()
        self.model = model

    def forward(self, previous: Tensor, reference: Tensor, features: Tensor, pose: Tensor, z: Tensor):
        encoded = self.model.frame_transformation(previous), self.model.label_transformation(pose)
        return self.model.decode(*encoded, z, Reference(reference, features))


def export(model: VAE_Model, height: int, width: int) -> dict[str, bytes]:
    """`network-reference` and `network-step` as ONNX files, with weights in 16 bits.

    Args:
        model: of the unet architecture, in eval mode on the CPU.
        height, width: of its frames.
    """
    # Each input is a separate tensor, because the exporter merges identical ones.
    previous, reference, reference_pose, pose = torch.zeros(4, 1, 3, height, width).unbind()
    z = torch.zeros(1, *model.latent_shape(height, width))
    of_reference, step = ReferenceFeatures(model).eval(), Step(model).eval()
    with torch.no_grad():
        features = of_reference(reference, reference_pose)
    inputs = {"previous": previous, "reference": reference, "features": features, "pose": pose, "z": z}
    reference_inputs = {"reference": reference, "reference_pose": reference_pose}
    return {
        "network-reference": _export(of_reference, reference_inputs, "features"),
        "network-step": _export(step, inputs, "next"),
    }


def _export(network: nn.Module, inputs: dict[str, Tensor], output: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of the exporter
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
    """Remove what only people read, such as the source lines of nodes."""
    for node in graph.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for entries in (graph.metadata_props, graph.graph.metadata_props, graph.graph.value_info):
        del entries[:]


def _halve_weights(graph: onnx.ModelProto) -> None:
    """Store large weights in 16 bits; they are cast to 32 bits when the graph is loaded."""
    casts = []
    for weight in list(graph.graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > MIN_HALF_SIZE:
            short = f"{weight.name}_16"
            casts.append(helper.make_node("Cast", [short], [weight.name], to=onnx.TensorProto.FLOAT))
            graph.graph.initializer.remove(weight)
            graph.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), short))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
