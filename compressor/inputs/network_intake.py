"""Whether a file is run as it is, and what it is then: the way of a teacher whose layers nobody knows.

    ONNX                                          always
    TorchScript, .pt2, where the user trusts it   unless its weights are those of a known architecture
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.card_facts import FROM_FLAG, Facts
from compressor.inputs.checkpoint_file import Kind
from compressor.inputs.identify import matching_architectures, without_auxiliary
from compressor.inputs.network_file import NetworkFile, NetworkKind
from compressor.inputs.onnx_network import read_onnx
from compressor.inputs.torch_network import read_torch
from compressor.inputs.trusted_file import read_trusted
from compressor.inputs.wrapped import network_tensors

KINDS: Mapping[Kind, NetworkKind] = {"ONNX": "onnx", "TorchScript": "torchscript", "pt2 (torch.export)": "pt2"}

# Of a card, and the flags that state them: what only a network has whose layers are known.
ABOUT_LAYERS = {
    "architecture": "--arch",
    "width": "width",
    "feature_layer": "--feature-layer",
    "classifier_layer": "--classifier-layer",
}


def network_in(
    path: Path, kind: Kind, facts: Facts, *, input_size: object, weights_key: str | None, trust_pickle: bool
) -> NetworkFile | None:
    """The network that is run from this file; None where the file is one of weights, or may not be opened.

    Args:
        kind: of the file.
        facts: what the card and the flags state.
        input_size: the flag; without it the card's input_shape says the size that a file leaves open.

    Raises:
        InputRefused: the file cannot be a teacher.
        UsageFault: a flag is about layers, of which the file has none that are known.
    """
    network_kind = KINDS.get(kind)
    if network_kind is None or (network_kind != "onnx" and not trust_pickle):
        return None
    if network_kind != "onnx" and (weights_key is not None or _is_of_known_layers(path, kind, facts)):
        return None
    if weights_key is not None:
        facts.state("weights", weights_key, FROM_FLAG)
    _refuse_layers(facts, network_kind)
    if input_size is None and isinstance(shape := facts.values.get("input_shape"), list | tuple) and len(shape) == 3:
        input_size = tuple(shape[1:])
    if network_kind == "onnx":
        return read_onnx(path, input_size)
    return read_torch(path, network_kind, input_size)


def _is_of_known_layers(path: Path, kind: Kind, facts: Facts) -> bool:
    """Whether its weights are those of an architecture that is known here, or that the user says they are."""
    if facts.values.get("architecture") not in (None, KINDS[kind]):
        return True
    try:
        tensors, _ = network_tensors(path.name, read_trusted(path, kind).tensors)
    except InputRefused:  # no weights by name, as in frozen TorchScript, or several networks
        return False
    return bool(matching_architectures(without_auxiliary(tensors)[0]))


def _refuse_layers(facts: Facts, kind: NetworkKind) -> None:
    for field, flag in (*ABOUT_LAYERS.items(), ("weights", "--weights")):
        value = facts.values.get(field)
        if value is None or value == kind or (field == "width" and value == 1.0):
            continue
        source = facts.origin[field]
        error: type[CompressError] = UsageFault if source == FROM_FLAG else InputRefused
        said = f"{flag} {value}" if source == FROM_FLAG else f"{source}, with {field} {value},"
        raise error(
            f"The teacher {facts.file} is run from its file as it is, and {said} is about its layers.",
            "Such a teacher gives logits alone, and has no layers that are known by name.",
            "Leave that out; for methods that use layers give the network's weights instead, and name its architecture.",
        )
