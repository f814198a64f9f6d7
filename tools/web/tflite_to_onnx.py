"""The networks of BlazePose, from TensorFlow Lite to ONNX.

Only the operators in these networks are supported. TensorFlow Lite uses NHWC, ONNX uses NCHW; the graph is
NCHW up to each RESHAPE.
"""

import numpy as np
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
INPUT = "input"
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
OPERATORS = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}


def convert(content: bytes, outputs: dict[str, str]) -> bytes:
    """A network as ONNX, with one float32 input `input`, `(1, 3, H, W)`.

    Args:
        content: of the tflite file.
        outputs: name in ONNX by name in TensorFlow Lite; what only other outputs need is left out.

    Raises:
        ValueError: an operator is not known.
    """
    graph = _Converter(tflite.Model.GetRootAsModel(content, 0)).graph(outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class _Converter:
    """Collects nodes and weights. Tensor number i is called `t<i>`."""

    def __init__(self, model: tflite.Model):
        self._model, self._graph = model, model.Subgraphs(0)
        self._constants: dict[int, np.ndarray] = {}
        self._is_flat: set[int] = set()  # tensors after a RESHAPE
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        for index in range(self._graph.TensorsLength()):
            self._read_constant(index)
        for index in range(self._graph.OperatorsLength()):
            self._convert(self._graph.Operators(index))

    def graph(self, outputs: dict[str, str]) -> onnx.GraphProto:
        """The nodes that some outputs need."""
        source = int(self._graph.Inputs(0))
        indices = {self._graph.Tensors(i).Name().decode(): int(i) for i in self._graph.OutputsAsNumpy()}
        names = {f"t{source}": INPUT} | {f"t{indices[old]}": new for old, new in outputs.items()}
        needed, nodes = set(names), []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                for field in (node.input, node.output):
                    field[:] = [names.get(name, name) for name in field]
                nodes.insert(0, node)
        shape = [self._shape(source)[axis] for axis in TO_CHANNELS_FIRST]
        inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)]
        shapes = {new: self._shape(indices[old]) for old, new in outputs.items()}
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes]
        weights = [
            numpy_helper.from_array(np.ascontiguousarray(values), name)
            for name, values in self._weights.items()
            if name in needed
        ]
        return helper.make_graph(nodes, "blazepose", inputs, results, weights)

    # ---- tensors

    def _shape(self, index: int) -> list[int]:
        return self._graph.Tensors(index).ShapeAsNumpy().tolist()

    def _read_constant(self, index: int) -> None:
        tensor = self._graph.Tensors(index)
        content = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(content, np.ndarray):
            values = np.frombuffer(content.tobytes(), DTYPES[tensor.Type()])
            is_sparse = tensor.Sparsity() is not None
            self._constants[index] = (
                self._dense(tensor, values) if is_sparse else values.reshape(self._shape(index))
            )

    def _dense(self, tensor: tflite.Tensor, values: np.ndarray) -> np.ndarray:
        """A tensor whose last dimension is stored as compressed sparse rows."""
        sparsity, shape = tensor.Sparsity(), tensor.ShapeAsNumpy()
        levels = [sparsity.DimMetadata(level) for level in range(sparsity.DimMetadataLength())]
        formats = [level.Format() for level in levels]
        is_rows = formats == [tflite.DimensionType.DENSE] * (len(shape) - 1) + [
            tflite.DimensionType.SPARSE_CSR
        ]
        if not is_rows or sparsity.TraversalOrderAsNumpy().tolist() != list(range(len(shape))):
            raise ValueError("only tensors whose last dimension is sparse are supported")
        segments = _numbers(levels[-1].ArraySegments(), levels[-1].ArraySegmentsType())
        columns = _numbers(levels[-1].ArrayIndices(), levels[-1].ArrayIndicesType())
        dense = np.zeros((len(segments) - 1, shape[-1]), values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(segments.astype(int))), columns] = values
        return dense.reshape(shape)

    def _weight(self, name: str, values: np.ndarray) -> str:
        """Store a weight; one of 16 bits is cast to 32 bits when the graph is loaded."""
        if values.dtype != np.float16:
            self._weights[name] = values
        elif f"{name}_16" not in self._weights:
            self._weights[f"{name}_16"] = values
            self._node("Cast", [f"{name}_16"], name, to=TensorProto.FLOAT)
        return name

    # ---- operators

    def _node(self, kind: str, inputs: list[str], output: str, activation: int = 0, **attributes) -> None:
        """Add a node, and the activation that TensorFlow Lite counts as a part of it."""
        kinds = tflite.ActivationFunctionType
        raw = output if activation == kinds.NONE else f"{output}_raw"
        self._nodes.append(helper.make_node(kind, inputs, [raw], **attributes))
        if activation == kinds.RELU:
            self._node("Relu", [raw], output)
        elif activation == kinds.RELU6:
            limits = [self._weight("zero", np.float32(0)), self._weight("six", np.float32(6))]
            self._node("Clip", [raw, *limits], output)
        elif activation != kinds.NONE:
            raise ValueError(f"activation {activation} is not supported")

    def _convert(self, operator: tflite.Operator) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        method = getattr(self, f"_{kind.lower()}", None)
        if method is None:
            raise ValueError(f"operator {kind} is not supported")
        method(operator, operator.InputsAsNumpy().tolist(), int(operator.Outputs(0)))

    def _densify(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        self._constants[output] = self._constants[inputs[0]]

    _dequantize = _densify

    def _conv_2d(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        options = _options(operator, tflite.Conv2DOptions)
        self._convolution(options, inputs, output, self._constants[inputs[1]].transpose(TO_CHANNELS_FIRST), 1)

    def _depthwise_conv_2d(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        options = _options(operator, tflite.DepthwiseConv2DOptions)
        weight = self._constants[inputs[1]].transpose(3, 0, 1, 2)
        self._convolution(options, inputs, output, weight, self._shape(inputs[0])[3])

    def _convolution(self, options, inputs: list[int], output: int, weight: np.ndarray, groups: int) -> None:
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            raise ValueError("dilation is not supported")
        names = (
            self._weight(f"t{inputs[1]}", weight),
            self._weight(f"t{inputs[2]}", self._constants[inputs[2]]),
        )
        window = _window(options, self._shape(inputs[0]), list(weight.shape[2:]))
        activation = options.FusedActivationFunction()
        self._node("Conv", [f"t{inputs[0]}", *names], f"t{output}", activation, group=groups, **window)

    def _max_pool_2d(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        options = _options(operator, tflite.Pool2DOptions)
        window = _window(options, self._shape(inputs[0]), [options.FilterHeight(), options.FilterWidth()])
        self._node("MaxPool", [f"t{inputs[0]}"], f"t{output}", options.FusedActivationFunction(), **window)

    def _add(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        activation = _options(operator, tflite.AddOptions).FusedActivationFunction()
        self._node("Add", [f"t{index}" for index in inputs], f"t{output}", activation)

    def _pad(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        before, after = self._constants[inputs[1]][TO_CHANNELS_FIRST].T.astype(np.int64)
        pads = self._weight(f"t{inputs[1]}", np.concatenate([before, after]))
        self._node("Pad", [f"t{inputs[0]}", pads], f"t{output}")

    def _resize_bilinear(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        options = _options(operator, tflite.ResizeBilinearOptions)
        mode = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
        mode = "align_corners" if options.AlignCorners() else mode
        size = np.array(self._shape(output), np.int64)[TO_CHANNELS_FIRST]
        names = [f"t{inputs[0]}", "", "", self._weight(f"size{output}", size)]
        self._node("Resize", names, f"t{output}", mode="linear", coordinate_transformation_mode=mode)

    def _depth_to_space(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        size = _options(operator, tflite.DepthToSpaceOptions).BlockSize()
        self._node("DepthToSpace", [f"t{inputs[0]}"], f"t{output}", blocksize=size, mode="DCR")

    def _logistic(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        self._node("Sigmoid", [f"t{inputs[0]}"], f"t{output}")

    def _reshape(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        shape = self._weight(f"shape{output}", np.array(self._shape(output), np.int64))
        self._node("Transpose", [f"t{inputs[0]}"], f"t{output}_nhwc", perm=TO_CHANNELS_LAST)
        self._node("Reshape", [f"t{output}_nhwc", shape], f"t{output}")
        self._is_flat.add(output)

    def _concatenation(self, operator: tflite.Operator, inputs: list[int], output: int) -> None:
        options = _options(operator, tflite.ConcatenationOptions)
        if not self._is_flat.issuperset(inputs):
            raise ValueError("concatenation of images is not supported")
        names = [f"t{index}" for index in inputs]
        self._node("Concat", names, f"t{output}", options.FusedActivationFunction(), axis=options.Axis())
        self._is_flat.add(output)


def _table(kind: type, table):
    """A table of the file as the given class."""
    result = kind()
    result.Init(table.Bytes, table.Pos)
    return result


def _options(operator: tflite.Operator, kind: type):
    return _table(kind, operator.BuiltinOptions())


def _numbers(table, kind: int) -> np.ndarray:
    """An array of sparse indices, in the smallest integers that hold it."""
    names = {value: name for name, value in vars(tflite.SparseIndexVector).items() if isinstance(value, int)}
    return _table(getattr(tflite, names[kind]), table).ValuesAsNumpy()


def _window(options, shape: list[int], kernel: list[int]) -> dict[str, list[int]]:
    """Kernel, strides and padding of a convolution or pooling of an image `(N, H, W, C)`."""
    strides, pads = [options.StrideH(), options.StrideW()], [0, 0]
    if options.Padding() == tflite.Padding.SAME:
        pads = [
            max((-(-size // stride) - 1) * stride + side - size, 0)
            for size, side, stride in zip(shape[1:3], kernel, strides, strict=True)
        ]
    before = [pad // 2 for pad in pads]
    after = [pad - half for pad, half in zip(pads, before, strict=True)]
    return {"kernel_shape": kernel, "strides": strides, "pads": before + after}
