"""Which operators of a graph the ONNX parser of a TensorRT version does not read, before anyone carries it to a board.

The table holds what documents say is missing, so its silence is not a promise: an operator that is not in it is either
read or not known here, and the parser itself has the last word. Sources, all of onnx/onnx-tensorrt but the last:

    8.4          docs/Changelog.md at 0137504e
    8.5          docs/Changelog.md; docs/operators.md at 009d6541 (TensorRT 8.4) against 6d0ab7be for HardSwish and
                 OneHot; Reciprocal, which the former denies and the sources have always had, is left out
    8.6          docs/Changelog.md
    10.0         docs/operators.md of TensorRT 9.2, the last before it: what that one lacks and 10.15 reads
    10.1-10.15   docs/Changelog.md, and docs/operators.md of TensorRT 10.15 for what no version reads
    11.0         release notes of TensorRT 11.0 (Swish); the parser of TensorRT-RTX 1.7 agrees (see the tests)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import onnx

from exporters.errors import ExportError
from profiles.schema import DeviceProfile, VersionRange

# The first version of which no document says that the operator is missing.
READ_SINCE = {
    **dict.fromkeys(("Shrink", "Xor"), "8.4"),
    **dict.fromkeys(("GridSample", "HardSwish", "MeanVarianceNormalization", "Mod", "NonZero", "OneHot"), "8.5"),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RoiAlign", "Trilu"), "8.5"),
    **dict.fromkeys(("GroupNormalization", "IsInf", "LayerNormalization"), "8.6"),
    **dict.fromkeys(("CastLike", "Gelu", "Hardmax", "Mish"), "10.0"),
    "DeformConv": "10.1",
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), "10.4"),
    "STFT": "10.5",
    "Attention": "10.14",
    **dict.fromkeys(("RMSNormalization", "RotaryEmbedding", "TensorScatter"), "10.15"),
    "Swish": "11.0",
}
READ_BY_NONE = frozenset(
    (
        *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det"),
        *("DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "Multinomial"),
        *("Optional", "QLinearConv", "QLinearMatMul", "SequenceAt", "SequenceConstruct", "SequenceEmpty"),
        *("SequenceInsert", "SequenceMap", "SplitToSequence", "Unique"),
    )
)
# Exporters write no opset below this one any more, so that nothing older is a way out.
OLDEST_EXPORT = 11
STANDARD_DOMAINS = ("", "ai.onnx")


def unread_operators(model: onnx.ModelProto, tensorrt_version: str) -> tuple[str, ...]:
    """Names of the operators in the model that this version ('8.5.2') is known not to read, sorted, each once.

    An operator of another domain is not known: TensorRT looks for a plugin of its name. A mode that no version reads
    is named with its operator: 'Resize (mode cubic)'.
    """
    return tuple(sorted({name for _, name in _unread(model, tensorrt_version)}))


def check_operators(model: onnx.ModelProto, profile: DeviceProfile) -> None:
    """Refuse a graph with an operator that the oldest TensorRT of the profile does not read; other runtimes pass.

    Raises:
        ExportError: names the first such node, all such operators, and the nearest way out.
    """
    if profile.runtime != "tensorrt" or profile.tensorrt is None:
        return
    version = profile.tensorrt.min
    found = list(_unread(model, version))
    if not found:
        return
    node, first = found[0]
    names = sorted({name for _, name in found})
    all_names = f" (nor {', '.join(name for name in names if name != first)})" if len(names) > 1 else ""
    raise ExportError(
        f"The ONNX parser of TensorRT {version} does not read {first}{all_names}, which node "
        f"'{node.name or node.output[0]}' is.",
        f"{profile.title} takes graphs that every TensorRT from {version} to {profile.tensorrt.max} reads.",
        _way_out(node, first, profile.tensorrt),
    )


def _unread(model: onnx.ModelProto, version: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    numbers = _numbers(version)
    nodes = [node for function in model.functions for node in function.node]
    for node in (*_nodes(model.graph.node), *_nodes(nodes)):
        if node.domain not in STANDARD_DOMAINS:
            continue
        if node.op_type in READ_BY_NONE or numbers < _numbers(READ_SINCE.get(node.op_type, "0")):
            yield node, node.op_type
        elif restriction := _unread_mode(node):
            yield node, f"{node.op_type} ({restriction})"


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and, after each, those of its subgraphs (If, Loop, Scan)."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _unread_mode(node: onnx.NodeProto) -> str | None:
    """Restrictions that image networks meet and that stand in the documents of all versions from 8.4 to 10.15."""
    values = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Resize":
        if "mode" in values and values["mode"].s == b"cubic":
            return "mode cubic"
        if "antialias" in values and values["antialias"].i:
            return "antialias"
    if node.op_type == "MaxPool" and len([name for name in node.output if name]) > 1:
        return "output Indices"
    return None


def _way_out(node: onnx.NodeProto, name: str, tensorrt: VersionRange) -> str:
    operator = node.op_type
    if name != operator:
        return f"Change that setting of {operator} in the network, or replace it there."
    since = READ_SINCE.get(operator)
    newer = (
        f", or narrow the range `tensorrt` of the profile to {since} and later"
        if since and tensorrt.admits(since)
        else ""
    )
    if opset := _opset_without(operator):
        return f"Export at opset {opset} or lower, which writes {operator} with older operators{newer}."
    return f"Replace {operator} in the network{newer}."


@cache
def _opset_without(operator: str) -> int | None:
    """The last opset that has no such operator; None where it is too old, or is no combination of older operators."""
    schemas = [
        schema
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == operator and schema.domain in STANDARD_DOMAINS
    ]
    last = min((schema.since_version for schema in schemas), default=0) - 1
    combined = any(
        schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]  # onnx's stubs
        for schema in schemas
    )
    return last if combined and last >= OLDEST_EXPORT else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
