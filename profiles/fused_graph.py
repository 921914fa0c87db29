"""From an ONNX graph to the kernels that TensorRT would run for it.

The rules, after the "Layer Fusion Catalog" in TensorRT's documentation (unverified: what it says of concatenations and
slices; no engine was taken apart for it):

    nothing      constants and what follows from them alone; reshapes; identity and dropout; casts and Q/DQ pairs;
                 padding in front of a convolution or pool; transposes, slices and scalings that only feed matrix
                 products (`reduced_graph`).
    one kernel   a convolution or matrix product with all pointwise arithmetic behind it whose values nobody else
                 reads: batch norm, bias, activation (SiLU as x * sigmoid(x) too), a residual addition.
    one kernel   pointwise arithmetic that no convolution takes in; layer norm, also where it is spelled out.
    one kernel   a slice, a resize, a transpose. A split has one for each part that is used.
    none or one  a concatenation: kernels write straight into its buffer, so only what cannot is copied, which is a
                 value that already lies in another concatenation, a constant or the network's input.

What differs by TensorRT version and device (SiLU fused or beside the convolution, attention in one kernel or three) is
not modelled: the list is the same for all, and a predictor's efficiencies carry the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx

from profiles.kernels import Kernel, KernelKind
from profiles.reduced_graph import CONVOLUTIONS, POOLS, PRODUCTS, Node, ReducedGraph
from profiles.static_shapes import with_static_shapes

REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"}
NORMALISATIONS = {
    "ArgMax", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization",
    "LRN", "RMSNormalization", "Softmax", "TopK",
}  # fmt: skip
MOVEMENTS = {
    "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Resize", "Slice", "SpaceToDepth", "Split",
    "Tile", "Transpose", "Upsample",
}  # fmt: skip
POINTWISE = {
    "Abs", "Add", "BatchNormalization", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "Log", "Max", "Min", "Mish", "Mod", "Mul",
    "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Swish", "Tanh", "Where",
}  # fmt: skip
KINDS_BY_OPERATOR: tuple[tuple[set[str], KernelKind], ...] = (
    (POOLS, "pool"),
    (NORMALISATIONS, "normalisation"),
    (MOVEMENTS, "movement"),
    (POINTWISE, "elementwise"),
)
TAKE_NOTHING_IN = ("pool", "movement", "other")
READ_WHAT_THEY_WRITE = {"Gather", "GatherElements", "GatherND", "Slice", "Split"}
LARGEST_PATTERN = 24  # nodes between two states of one leaving value; GELU spelled out has 8


def kernels_of_graph(model: onnx.ModelProto, batch_size: int) -> tuple[Kernel, ...]:
    """See `profiles.kernels.fused_kernels`."""
    graph = ReducedGraph(with_static_shapes(model, batch_size))
    kernels: list[Kernel] = []
    taken: set[int] = set()
    placed: set[str] = set()  # values that lie in the buffer of a concatenation
    for node in graph.nodes:
        if node.index in taken:
            continue
        if node.op == "Concat":
            kernels += _copies_into_concatenation(graph, node, placed)
            continue
        kind = _kind(graph, node)
        fused = _fused(graph, node, kind, taken)
        taken |= fused
        kernels += _kernels(graph, node, kind, fused)
    return tuple(kernels)


def _kind(graph: ReducedGraph, node: Node) -> KernelKind:
    if node.op in CONVOLUTIONS:
        groups = node.attributes.get("group", 1)
        if groups > 1:
            return "depthwise" if groups == graph.shape(node.inputs[0], node)[1] else "grouped"
        return "pointwise" if _window(graph, node) == 1 else "convolution"
    if node.op in PRODUCTS:
        return "gemm" if _weight(graph, node) else "attention"
    if node.op in REDUCTIONS:
        return "normalisation" if _reduces_rows(graph, node) else "pool"
    return next((kind for operators, kind in KINDS_BY_OPERATOR if node.op in operators), "other")


def _weight(graph: ReducedGraph, node: Node) -> str | None:
    """The weight tensor of a convolution (whatever makes it), or the constant factor of a matrix product."""
    if node.op in CONVOLUTIONS:
        return node.inputs[1]
    if node.op in PRODUCTS:
        return next((name for name in node.inputs[:2] if graph.is_constant(name)), None)
    return None


def _reduces_rows(graph: ReducedGraph, node: Node) -> bool:
    """Whether a reduction runs along one row of channels, as layer norm does, and not over an image, as a pool."""
    rank = len(graph.shape(node.inputs[0], node))
    listed = node.attributes.get("axes") or next((graph.integers(name) for name in node.inputs[1:]), None)
    axes = {axis % rank for axis in listed or range(rank)}
    return axes == {rank - 1} or (rank == 4 and axes == {1})


def _fused(graph: ReducedGraph, anchor: Node, kind: KernelKind, taken: set[int]) -> set[int]:
    """The nodes of the kernel around `anchor`: pointwise arithmetic joins while only one value leaves the kernel."""
    inside = {anchor.index}
    if kind in TAKE_NOTHING_IN:
        return inside
    joinable = POINTWISE | (REDUCTIONS if kind == "normalisation" else set())
    # What joins is computed where the anchor's values are: it cannot be larger (a gate times a map runs beside it).
    # A reduction is different: layer norm that is spelled out comes back to the size that it started from.
    largest = graph.elements((anchor.inputs if anchor.op in REDUCTIONS else anchor.writes)[0], anchor)
    while extension := _smallest_extension(graph, inside, joinable, largest, taken):
        inside |= extension
    return inside


def _smallest_extension(
    graph: ReducedGraph, inside: set[int], joinable: set[str], largest: int, taken: set[int]
) -> set[int]:
    """The fewest nodes that can join so that again only one value is read outside; empty if there are none.

    A joining node may read other values too (a residual addition), if they do not wait for this kernel.
    """
    joined: set[int] = set()
    while len(joined) < LARGEST_PATTERN:
        region = inside | joined
        candidates = sorted({reader for index in region for reader in _readers(graph, index)} - region - taken)
        for index in candidates:
            node = graph.nodes[index]
            if (
                node.op in joinable
                and not (node.op in REDUCTIONS and not _reduces_rows(graph, node))
                and graph.elements(node.writes[0], node) <= largest
                and not _waits_for(graph, node, region)
            ):
                joined.add(index)
                break
        else:
            return set()
        if len(_leaving(graph, inside | joined)) == 1:
            return joined
    return set()


def _waits_for(graph: ReducedGraph, node: Node, region: set[int]) -> bool:
    """Whether something that `node` reads from outside the region needs the region first."""
    mask = sum(1 << index for index in region)
    writers = {graph.writer[value] for _, value in node.reads if value in graph.writer}
    return any(graph.ancestors[writer] & mask for writer in writers - region)


def _readers(graph: ReducedGraph, index: int) -> Iterator[int]:
    for value in graph.nodes[index].writes:
        yield from graph.readers[value]


def _leaving(graph: ReducedGraph, region: set[int]) -> list[tuple[str, Node]]:
    """Values of the region that somebody outside reads, or that the network gives, with their nodes."""
    return [
        (value, graph.nodes[index])
        for index in sorted(region)
        for value in graph.nodes[index].writes
        if value in graph.ends or not region.issuperset(graph.readers[value])
    ]


def _kernels(graph: ReducedGraph, node: Node, kind: KernelKind, fused: set[int]) -> Iterator[Kernel]:
    """One kernel around `node` for each value that leaves it: one, but for a split."""
    reads: dict[str, int] = {}
    for member in (graph.nodes[index] for index in sorted(fused)):
        for value, whole in member.reads:
            if graph.writer.get(whole) not in fused:
                reads[whole] = max(reads.get(whole, 0), graph.elements(value, member))
    weight = _weight(graph, node)
    for value, writer in _leaving(graph, fused):
        shape = graph.shape(value, writer)
        elements, channels = math.prod(shape), _channels(shape, kind)
        read = sum(reads.values())
        yield Kernel(
            name=node.name,
            kind=kind,
            macs=_macs(graph, node),
            input_elements=min(read, elements) if node.op in READ_WHAT_THEY_WRITE else read,
            weight_elements=graph.elements(weight, node) if weight else 0,
            output_elements=elements,
            input_channels=channels if kind == "movement" else _channels(graph.shape(node.reads[0][0], node), kind),
            output_channels=channels,
            positions=elements // channels,
            window=_window(graph, node),
            stride=next(iter(node.attributes.get("strides", ())), 1),
            groups=_groups(graph, node, kind),
        )


def _copies_into_concatenation(graph: ReducedGraph, node: Node, placed: set[str]) -> Iterator[Kernel]:
    copied = sum(graph.elements(name, node) for name in node.inputs if graph.is_constant(name))
    for value, whole in node.reads:
        if whole in placed or whole in graph.inputs:
            copied += graph.elements(value, node)
        placed.add(whole)
    if copied:
        shape = graph.shape(node.writes[0], node)
        positions = math.prod(shape) // _channels(shape, "movement")
        channels = max(1, copied // positions)
        yield Kernel(node.name, "movement", 0, copied, 0, copied, channels, channels, positions)


def _macs(graph: ReducedGraph, node: Node) -> int:
    """Multiply-accumulates, one for each product that is summed: also within attention, which `exporters.macs` leaves
    out.
    """
    if node.op in PRODUCTS:
        depth = graph.shape(node.inputs[0], node)[0 if node.attributes.get("transA") else -1]
        return graph.elements(node.writes[0], node) * depth
    weight = _weight(graph, node)
    if weight is None:
        return 0
    elements, shape = graph.elements(weight, node), graph.shape(node.writes[0], node)
    if node.op == "Conv":  # the weight is (out, in / groups, ...): every output value sums one row of it
        return math.prod(shape) * (elements // shape[1])
    # ConvTranspose, (in, out / groups, ...): every input value is spread over one row of it
    return graph.elements(node.inputs[0], node) * (elements // graph.shape(node.inputs[0], node)[1])


def _window(graph: ReducedGraph, node: Node) -> int:
    if node.op in CONVOLUTIONS:
        return math.prod(graph.shape(node.inputs[1], node)[2:])
    if node.op in POOLS and "kernel_shape" in node.attributes:
        return math.prod(node.attributes["kernel_shape"])
    if node.op in POOLS or (node.op in REDUCTIONS and not _reduces_rows(graph, node)):
        return graph.elements(node.inputs[0], node) // graph.elements(node.writes[0], node)
    return 1


def _groups(graph: ReducedGraph, node: Node, kind: KernelKind) -> int:
    if kind == "attention":
        return math.prod(graph.shape(node.writes[0], node)[:-2])
    return int(node.attributes.get("group", 1)) if node.op in CONVOLUTIONS else 1


def _channels(shape: Sequence[int], kind: KernelKind) -> int:
    """Of an image (B, C, H, W) its second dimension, of a matrix or a stack of matrices the last."""
    if len(shape) == 4 and kind not in ("gemm", "attention", "normalisation"):
        return shape[1]
    return shape[-1] if shape else 1
