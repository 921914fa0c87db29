"""A classifier of one logit as one of two, in its ONNX file: z becomes (0, z), whose softmax is exactly the sigmoid."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters.onnx_names import fresh_name, names_in
from exporters.onnx_normalisation import add_constant


def answer_both(proto: onnx.ModelProto) -> None:
    """Give (B, 2) where a model of one output gave (B, 1); needs the opset of `normalise_inside`.

    One product with (0, 1), and not a matrix product or a Concat: no layer is counted or quantised more than there was.
    """
    graph = proto.graph
    (gave,) = graph.output
    taken = set(names_in(graph))
    both, gives = (fresh_name(f"{gave.name}_{word}", taken) for word in ("both", "of_both"))
    add_constant(proto, numpy_helper.from_array(np.array([[0.0, 1.0]], np.float32), both))
    graph.node.append(helper.make_node("Mul", [gave.name, both], [gives], name=gives))
    gave.name = gives
    if gave.type.tensor_type.shape.dim:
        gave.type.tensor_type.shape.dim[-1].dim_value = 2
