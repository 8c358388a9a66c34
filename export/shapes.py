"""Shapes of a graph's tensors, inferred without the bytes of its weights.

Inference would copy those bytes four times over.
"""

import onnx
from onnx import TensorProto

MIN_HELD_BYTES = 1024  # what is smaller may be a shape, whose numbers inference reads


def infer_shapes(model: onnx.ModelProto) -> None:
    """Write types and shapes of all tensors into the graph."""
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= MIN_HELD_BYTES]
    held = [tensor.raw_data for tensor in large]
    for tensor in large:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="held")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for tensor, content in zip(large, held, strict=True):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = content
    for own, found in ((model.graph.value_info, inferred.value_info), (model.graph.output, inferred.output)):
        del own[:]
        own.extend(found)
