from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import tiny_int8
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torchvision import models

from compressor.students.student import classifier_sharing
from exporters.macs import count_macs
from exporters.onnx_files import load_onnx
from exporters.onnx_to_fp16 import fp16_from_onnx
from exporters.onnx_to_int8 import int8_from_onnx
from exporters.routes import Int8Form
from exporters.torch_to_onnx import onnx_from_torch
from profiles.errors import ProfileError
from profiles.kernels import Kernel, at_batch, fused_kernels, kernels_from_json, kernels_to_json, total_macs

node = helper.make_node
TORCHSCRIPT, DYNAMO = 17, 20


def exported(network: nn.Module, folder: Path, *, size: int, opset: int) -> onnx.ModelProto:
    """As the product exports it: batch dynamic, one of torch's two exporters by opset."""
    file = onnx_from_torch(network.eval(), (3, size, size), folder / "m.onnx", opset_ceiling=opset, metadata={})
    return load_onnx(file.path)


def graph(
    nodes: Sequence[NodeProto],
    *,
    x: Sequence[int | str] = ("batch", 8, 16, 16),
    weights: dict[str, Sequence[int]] | None = None,
    constants: dict[str, Sequence[float]] | None = None,
    output: str = "y",
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph with the float input x; integers in `constants` become int64 tensors."""
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (weights or {}).items()]
    for name, values in (constants or {}).items():
        kind = np.float32 if any(isinstance(value, float) for value in values) else np.int64
        tensors.append(numpy_helper.from_array(np.array(values, kind), name))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def kinds(kernels: Sequence[Kernel]) -> Counter[str]:
    return Counter(kernel.kind for kernel in kernels)


def conv(source: str, output: str, weight: str = "w") -> NodeProto:
    return node("Conv", [source, weight], [output], name=output, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


# Whole networks.

EXPECTED = {
    "resnet18": {"convolution": 17, "pointwise": 3, "pool": 2, "gemm": 1},
    "mobilenet_v2": {"convolution": 1, "depthwise": 17, "pointwise": 34, "pool": 1, "gemm": 1},
    "efficientnet_b0": {
        "convolution": 1, "depthwise": 16, "pointwise": 64, "pool": 17, "elementwise": 16, "gemm": 1,
    },
    # A channel shuffle is one transpose, and each of the 13 blocks of stride 1 cuts two slices.
    "shufflenet_v2_x0_5": {
        "convolution": 1, "depthwise": 19, "pointwise": 36, "pool": 2, "movement": 16 + 2 * 13, "gemm": 1,
    },
}  # fmt: skip
MACS_AT_224 = {"resnet18": 1_814_073_344, "mobilenet_v2": 300_774_272, "efficientnet_b0": 385_814_752}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_known_network_has_its_known_kernels(name: str, tmp_path: Path) -> None:
    network = getattr(models, name)(weights=None)
    kernels = fused_kernels(exported(network, tmp_path, size=224, opset=TORCHSCRIPT))
    assert kinds(kernels) == EXPECTED[name]
    assert total_macs(kernels) == count_macs(network, (3, 224, 224))
    assert total_macs(kernels) == MACS_AT_224.get(name, total_macs(kernels))


class Mixed(nn.Module):
    """A bit of everything: a gate, hard-swish, a shuffle of channels, a concatenation and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.classifier = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.deep(x)
        x = torch.cat((x, y * self.gate(y)), 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.classifier(x.mean((2, 3)))


def test_both_exporters_give_the_same_kernels(tmp_path: Path) -> None:
    old, new = (fused_kernels(exported(Mixed(), tmp_path, size=16, opset=opset)) for opset in (TORCHSCRIPT, DYNAMO))
    assert old == new
    expected = ["convolution", "depthwise", "pool", "pointwise", "elementwise", "movement", "pool", "gemm"]
    assert [kernel.kind for kernel in new] == expected
    assert total_macs(new) == count_macs(Mixed(), (3, 16, 16))


def test_a_transformer_is_products_and_normalisations(tmp_path: Path) -> None:
    network = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    kernels = fused_kernels(exported(network, tmp_path, size=32, opset=DYNAMO))
    counts = kinds(kernels)
    assert counts["convolution"] == 1  # the patches
    assert counts["gemm"] == 2 * 4 + 1  # joint projection, output, two of the MLP (GELU inside); the classifier
    assert counts["attention"] == 2 * 2
    assert counts["normalisation"] == 2 * 3 + 1  # two layer norms and a softmax each, and the last layer norm
    assert sum(k.macs for k in kernels if k.kind == "attention") == 2 * 2 * 17 * 17 * 32  # 16 patches and the class
    scores = next(k for k in kernels if k.kind == "attention")
    assert (scores.groups, scores.positions, scores.output_channels) == (2, 2 * 17, 17)


@pytest.mark.parametrize("opset", [13, TORCHSCRIPT, DYNAMO])
def test_our_student_is_its_layers_with_the_normalisation_in_front(opset: int, tmp_path: Path) -> None:
    teacher = tiny.teacher()
    student = classifier_sharing(tiny.backbone(), teacher)
    kernels = fused_kernels(exported(student, tmp_path, size=tiny.IMAGE_SHAPE[1], opset=opset))
    assert kernels[0].kind == "elementwise"  # (x - mean) / std
    convolutions = sum(isinstance(module, nn.Conv2d) for module in student.modules())
    counts = kinds(kernels)
    assert counts["convolution"] + counts["pointwise"] == convolutions
    assert counts == {**counts, "elementwise": 1, "pool": 1, "gemm": 1}
    assert len(kernels) == convolutions + 3
    assert total_macs(kernels) == count_macs(student, tiny.IMAGE_SHAPE)


@pytest.mark.parametrize("form", ["tensorrt", "onnxruntime"])
def test_precision_does_not_change_the_kernels(form: Int8Form, tmp_path: Path) -> None:
    source = tiny_int8.residual_net(tmp_path / "fp32.onnx", opset=19)
    expected = fused_kernels(load_onnx(source))
    assert kinds(expected) == {"convolution": 3, "pool": 2, "gemm": 1}
    fp16_from_onnx(source, tmp_path / "fp16.onnx")
    names = ("image", "conv1", "relu1", "pool", "conv2", "relu2", "conv3", "sum", "relu3", "mean", "flat", "logits")
    int8_from_onnx(source, tmp_path / "int8.onnx", ranges=dict.fromkeys(names, (-1.0, 1.0)), form=form)
    fp16_from_onnx(tmp_path / "int8.onnx", tmp_path / "both.onnx")
    for name in ("fp16", "int8", "both"):
        assert fused_kernels(load_onnx(tmp_path / f"{name}.onnx")) == expected, name


# Single rules.


def test_a_convolution_takes_in_norm_activation_and_addition() -> None:
    nodes = [
        conv("x", "a"),
        node("BatchNormalization", ["a", "g", "g", "g", "g"], ["b"]),
        node("Add", ["b", "x"], ["c"]),
        node("Relu", ["c"], ["y"]),
    ]
    (kernel,) = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3), "g": (8,)}), batch_size=2)
    assert kernel == Kernel(
        name="a",
        kind="convolution",
        macs=2 * 16 * 16 * 8 * 8 * 9,
        input_elements=2 * 8 * 16 * 16,  # the image, which the addition reads too
        weight_elements=8 * 8 * 9,
        output_elements=2 * 8 * 16 * 16,
        input_channels=8,
        output_channels=8,
        positions=2 * 16 * 16,
        window=9,
    )


SILU = [conv("x", "a"), node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["y"])]
GELU = [
    conv("x", "a"),
    node("Div", ["a", "root"], ["b"]),
    node("Erf", ["b"], ["c"]),
    node("Add", ["c", "one"], ["d"]),
    node("Mul", ["a", "d"], ["e"]),
    node("Mul", ["e", "half"], ["y"]),
]


@pytest.mark.parametrize("nodes", [SILU, GELU], ids=["SiLU", "GELU"])
def test_an_activation_that_reads_its_input_twice_is_part_of_the_convolution(nodes: list[NodeProto]) -> None:
    constants = {"root": [2**0.5], "one": [1.0], "half": [0.5]}
    (kernel,) = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3)}, constants=constants))
    assert kernel.kind == "convolution"
    assert kernel.input_elements == 8 * 16 * 16


def test_what_somebody_else_reads_ends_the_kernel() -> None:
    nodes = [conv("x", "a"), node("Relu", ["a"], ["b"]), conv("b", "c"), node("Add", ["a", "c"], ["y"])]
    kernels = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3)}))
    # The addition reads `a` before its activation, so the activation cannot be inside the first convolution.
    assert [(kernel.name, kernel.kind) for kernel in kernels] == [
        ("a", "convolution"),
        ("Relu of b", "elementwise"),
        ("c", "convolution"),
    ]
    assert kernels[2].input_elements == 2 * 8 * 16 * 16


def test_a_gate_runs_beside_its_map() -> None:
    """Squeeze and excitation: the small convolution cannot compute the large product."""
    nodes = [
        conv("x", "a"),
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Conv", ["p", "v"], ["g"]),
        node("Sigmoid", ["g"], ["s"]),
        node("Mul", ["a", "s"], ["y"]),
    ]
    kernels = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3), "v": (8, 8, 1, 1)}))
    assert [kernel.kind for kernel in kernels] == ["convolution", "pool", "pointwise", "elementwise"]
    assert kernels[1].window == 16 * 16
    assert kernels[3].input_elements == 8 * 16 * 16 + 8


def test_an_addition_never_waits_for_its_own_kernel() -> None:
    """The product reads what the pool makes of the same convolution: fused, it would wait for itself."""
    nodes = [
        conv("x", "a"),
        node("MaxPool", ["a"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Mul", ["a", "p"], ["y"]),
    ]
    kernels = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3)}))
    assert [kernel.kind for kernel in kernels] == ["convolution", "pool", "elementwise"]


def test_layer_norm_that_is_spelled_out_is_one_kernel() -> None:
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[-1]),
        node("Sub", ["x", "m"], ["d"]),
        node("Pow", ["d", "two"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=[-1]),
        node("Add", ["v", "tiny"], ["e"]),
        node("Sqrt", ["e"], ["s"]),
        node("Div", ["d", "s"], ["n"]),
        node("Mul", ["n", "g"], ["h"]),
        node("Add", ["h", "g"], ["y"]),
    ]
    constants = {"two": [2.0], "tiny": [1e-5]}
    (kernel,) = fused_kernels(graph(nodes, x=("batch", 5, 8), weights={"g": (8,)}, constants=constants, opset=13))
    assert (kernel.kind, kernel.input_elements, kernel.output_elements, kernel.positions) == (
        "normalisation",
        40,
        40,
        5,
    )


def test_a_concatenation_copies_only_what_lies_elsewhere() -> None:
    nodes = [
        conv("x", "a"),
        conv("a", "b"),
        node("Concat", ["a", "b"], ["once"], axis=1),  # free: both kernels write into its buffer
        conv("once", "c", "v"),
        node("Concat", ["a", "c"], ["twice"], axis=1),  # `a` lies in the first buffer
        node("Concat", ["twice", "x"], ["y"], axis=1),  # so does the network's input, in its own
    ]
    kernels = fused_kernels(graph(nodes, weights={"w": (8, 8, 3, 3), "v": (8, 16, 3, 3)}))
    copies = [kernel for kernel in kernels if kernel.kind == "movement"]
    assert [copy.output_elements for copy in copies] == [8 * 256, 8 * 256]
    assert kinds(kernels)["convolution"] == 3


def test_a_split_has_one_kernel_for_each_part_that_is_used() -> None:
    nodes = [
        node("Split", ["x"], ["a", "b", "c"], axis=1),
        conv("a", "p"),
        conv("b", "q"),
        node("Add", ["p", "q"], ["y"]),
    ]
    kernels = fused_kernels(graph(nodes, x=("batch", 24, 16, 16), weights={"w": (8, 8, 3, 3)}))
    slices = [kernel for kernel in kernels if kernel.kind == "movement"]
    assert [(s.input_elements, s.output_elements) for s in slices] == [(8 * 256, 8 * 256)] * 2


@pytest.mark.parametrize(
    "before",
    [
        node("Identity", ["x"], ["v"]),
        node("Cast", ["x"], ["v"], to=TensorProto.FLOAT),
        node("Pad", ["x", "pads"], ["v"]),
        node("Concat", ["x"], ["v"], axis=1),
        node("AveragePool", ["x"], ["v"], kernel_shape=[1, 1]),
    ],
    ids=lambda made: made.op_type,
)
def test_some_nodes_are_no_kernel(before: NodeProto) -> None:
    constants = {"pads": [0] * 8}
    (kernel,) = fused_kernels(graph([before, conv("v", "y")], weights={"w": (8, 8, 3, 3)}, constants=constants))
    assert kernel.kind == "convolution"


def test_only_a_pool_of_more_than_one_value_counts() -> None:
    nodes = [node("AveragePool", ["x"], ["y"], kernel_shape=[1, 1], strides=[2, 2])]  # takes every second value
    assert kinds(fused_kernels(graph(nodes))) == {"pool": 1}


@pytest.mark.parametrize(
    ("weight", "group", "kind", "macs"),
    [
        ((16, 8, 1, 1), 1, "pointwise", 256 * 16 * 8),
        ((8, 1, 3, 3), 8, "depthwise", 196 * 8 * 9),
        ((16, 1, 3, 3), 8, "depthwise", 196 * 16 * 9),
        ((16, 4, 3, 3), 2, "grouped", 196 * 16 * 4 * 9),
        ((16, 8, 5, 5), 1, "convolution", 144 * 16 * 8 * 25),
    ],
)
def test_kinds_of_convolution(weight: tuple[int, ...], group: int, kind: str, macs: int) -> None:
    (kernel,) = fused_kernels(graph([node("Conv", ["x", "w"], ["y"], group=group)], weights={"w": weight}))
    assert (kernel.kind, kernel.macs, kernel.groups) == (kind, macs, group)
    assert kernel.weight_elements == math.prod(weight)


def test_a_transposed_convolution_spreads_every_input_value() -> None:
    made = node("ConvTranspose", ["x", "w"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    (kernel,) = fused_kernels(graph([made], weights={"w": (8, 4, 2, 2)}))
    assert (kernel.kind, kernel.output_elements, kernel.macs) == ("convolution", 4 * 32 * 32, 8 * 256 * 4 * 4)
    assert kernel.stride == 2


def test_transposes_that_only_feed_a_product_are_free_and_others_are_not() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("Mul", ["t", "scale"], ["u"]),
        node("MatMul", ["x", "u"], ["p"]),
        node("Transpose", ["p"], ["y"], perm=[0, 2, 1]),
    ]
    kernels = fused_kernels(graph(nodes, x=("batch", 6, 8), constants={"scale": [0.5]}))
    assert [kernel.kind for kernel in kernels] == ["attention", "movement"]
    assert kernels[0].macs == 6 * 6 * 8


def test_a_constant_may_be_either_factor_of_a_product() -> None:
    nodes = [node("MatMul", ["w", "x"], ["a"]), node("MatMul", ["a", "v"], ["y"])]
    left, right = fused_kernels(graph(nodes, x=("batch", 6, 8), weights={"w": (5, 6), "v": (8, 3)}))
    assert (left.kind, left.macs, left.weight_elements) == ("gemm", 5 * 6 * 8, 30)
    assert (right.kind, right.macs, right.weight_elements) == ("gemm", 5 * 8 * 3, 24)


@pytest.mark.parametrize("name", ["value", "value_ints"])
def test_axes_may_come_from_a_constant_node(name: str) -> None:
    axes = numpy_helper.from_array(np.array([2, 3])) if name == "value" else [2, 3]
    nodes = [node("Constant", [], ["axes"], **{name: axes}), node("ReduceMean", ["x", "axes"], ["y"])]
    (kernel,) = fused_kernels(graph(nodes, opset=18))
    assert (kernel.kind, kernel.window) == ("pool", 16 * 16)


def test_an_operator_of_somebody_else_is_known_where_its_shapes_are() -> None:
    made = graph([node("Sharpen", ["x"], ["s"], domain="acme"), node("Relu", ["s"], ["y"])])
    made.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(ProfileError, match="Sharpen"):
        fused_kernels(made)
    made.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ("batch", 8, 16, 16)))
    assert [kernel.kind for kernel in fused_kernels(made, batch_size=2)] == ["other", "elementwise"]


def test_an_operator_that_the_rules_do_not_know_is_named_so() -> None:
    kernels = fused_kernels(graph([node("CumSum", ["x", "axis"], ["y"])], constants={"axis": [1]}))
    assert [kernel.kind for kernel in kernels] == ["other"]


# Shapes and batches.


@pytest.mark.parametrize("opset", [TORCHSCRIPT, DYNAMO])
def test_a_batch_scales_activations_and_leaves_weights(opset: int, tmp_path: Path) -> None:
    proto = exported(Mixed(), tmp_path, size=16, opset=opset)
    one, eight = fused_kernels(proto), fused_kernels(proto, batch_size=8)
    assert eight == at_batch(one, 8)
    assert total_macs(eight) == 8 * total_macs(one)
    assert sum(k.weight_elements for k in eight) == sum(k.weight_elements for k in one)


def test_shape_arithmetic_that_onnx_does_not_follow_is_computed() -> None:
    """torch's older exporter divides a channel count and reshapes with it, once after the other."""

    def halved(source: str, target: str) -> list[NodeProto]:
        """(1, C, rest) to (1, C / 2, rest)."""
        return [
            node("Shape", [source], [f"{target}_shape"]),
            node("Gather", [f"{target}_shape", "one"], [f"{target}_channels"]),
            node("Div", [f"{target}_channels", "two"], [f"{target}_half"]),
            node("Concat", ["one", f"{target}_half", "rest"], [f"{target}_shape2"], axis=0),
            node("Reshape", [source, f"{target}_shape2"], [target]),
        ]

    nodes = [*halved("x", "a"), node("Relu", ["a"], ["b"]), *halved("b", "c"), node("Tanh", ["c"], ["y"])]
    kernels = fused_kernels(graph(nodes, constants={"one": [1], "two": [2], "rest": [-1]}))
    assert [(k.kind, k.output_elements, k.output_channels) for k in kernels] == [("elementwise", 2048, 1024)]


def test_a_graph_of_another_fixed_batch_is_refused() -> None:
    made = graph([node("Relu", ["x"], ["y"])], x=(4, 8, 16, 16))
    assert fused_kernels(made, batch_size=4)[0].output_elements == 4 * 2048
    with pytest.raises(ProfileError) as caught:
        fused_kernels(made)
    assert "'x' is fixed to batches of 4" in caught.value.received
    assert "batches of 4" in caught.value.action


def test_a_shape_that_depends_on_values_is_refused() -> None:
    made = graph([node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["f"], to=1), node("Relu", ["f"], ["y"])])
    with pytest.raises(ProfileError) as caught:
        fused_kernels(made)
    assert "(NonZero) cannot be told" in caught.value.received
    assert "fixed image size" in caught.value.action


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ProfileError, match="cannot be inferred") as caught:
        fused_kernels(graph([conv("x", "y")], weights={"w": (8, 5, 3, 3)}, x=("batch", 8, 16)))
    assert "Export the model again" in caught.value.action


def test_the_graph_that_is_given_stays_as_it_is() -> None:
    made = graph(SILU, weights={"w": (8, 8, 3, 3)})
    before = made.SerializeToString()
    fused_kernels(made, batch_size=3)
    assert made.SerializeToString() == before


# Files.


def test_json_keeps_all_but_names_and_joins_equals(tmp_path: Path) -> None:
    kernels = fused_kernels(exported(models.mobilenet_v2(weights=None), tmp_path, size=32, opset=TORCHSCRIPT))
    rows = kernels_to_json(kernels)
    assert len(rows) < len(kernels)
    assert sum(row[0] for row in rows) == len(kernels)
    assert Counter(kernels_from_json(rows)) == Counter(kernels)
    assert kernels_to_json(kernels_from_json(rows)) == rows


def test_json_of_another_version_is_refused() -> None:
    (row,) = kernels_to_json([Kernel("k", "gemm", 8, 4, 8, 2, 4, 2, 1)])
    with pytest.raises(ValueError, match="unknown kind of kernel 'fused'"):
        kernels_from_json([[1, "fused", *row[2:]]])
    with pytest.raises(ValueError, match="zip"):
        kernels_from_json([row[:-1]])


def test_positions_and_channels_make_the_output(tmp_path: Path) -> None:
    kernels = fused_kernels(exported(models.shufflenet_v2_x0_5(weights=None), tmp_path, size=64, opset=TORCHSCRIPT))
    assert all(kernel.positions * kernel.output_channels == kernel.output_elements for kernel in kernels)
