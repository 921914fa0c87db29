"""Whether a file is run as it is, and what it is then: the way of a teacher whose layers nobody knows.

    ONNX                                          always
    TorchScript, .pt2, where the user trusts it   unless a known architecture with its weights answers as it does

That the weights fit is not enough: around a known network the file may hold its normalisation, or one layer more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.card_facts import FROM_FLAG, Facts
from compressor.inputs.checkpoint_file import Kind, is_onnx
from compressor.inputs.identify import channel_count, class_count, matching_architectures, without_auxiliary
from compressor.inputs.network_file import NUM_PROBES, SAME, NetworkFile, NetworkKind, check_classes, open_network
from compressor.inputs.onnx_network import read_onnx
from compressor.inputs.stated_size import StatedSize, stated_size
from compressor.inputs.torch_network import read_torch
from compressor.inputs.trusted_file import read_trusted
from compressor.inputs.wrapped import network_tensors
from compressor.students.architectures import build_network
from exporters.errors import ExportError
from exporters.onnx_files import external_files

KINDS: Mapping[Kind, NetworkKind] = {"ONNX": "onnx", "TorchScript": "torchscript", "pt2 (torch.export)": "pt2"}

STOOD_FOR = 64  # pixels of a side that a file leaves open, where it is only described

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
        InputRefused: the file cannot be a teacher, or the card's input_shape is none or another than the file's.
        UsageFault: a flag is about layers, of which the file has none that are known, or states another size.
    """
    network_kind = KINDS.get(kind)
    if network_kind is None or (network_kind != "onnx" and not trust_pickle):
        return None
    stated = stated_size(facts, input_size)
    if network_kind == "onnx":
        if weights_key is not None:
            facts.state("weights", weights_key, FROM_FLAG)
        _refuse_layers(facts, network_kind)
        return read_onnx(path, stated)
    if weights_key is not None or facts.values.get("architecture") not in (None, network_kind):
        return None  # the user says what its weights are
    known = _known_network(path, kind)
    if known is None:
        _refuse_layers(facts, network_kind)
        return read_torch(path, network_kind, stated)
    return _more_than(known, path, network_kind, stated)


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files in which an ONNX file keeps weights; none of another file, or of one that will be refused."""
    try:
        return tuple(file for file in external_files(path) if file.is_file()) if is_onnx(path) else ()
    except (ExportError, OSError):
        return ()


def described_onnx(path: Path) -> tuple[tuple[str, ...], str]:
    """What an ONNX file is to a run, in sentences, and what to do with it."""
    from compressor.methods import methods_for

    try:
        found = read_onnx(path, stand_in=STOOD_FOR)
        if found.dense:
            check_classes(path.name, found.num_classes, "segmentation")
    except CompressError as refused:
        return (f"{refused.received} {refused.expected}",), refused.action
    channels, *sides = found.image_shape
    height, width = ("any" if is_open else side for side, is_open in zip(sides, found.open_sides, strict=True))
    images = f"{channels} x any size" if all(found.open_sides) else f"{channels} x {height} x {width}"
    numbers = "1 number" if found.num_classes == 1 else f"{found.num_classes} numbers"
    each = f"{numbers} for each {'pixel' if found.dense else 'image'}"
    lines = [f"takes images {images}, gives {each}: {' or '.join(found.tasks)}", *found.notes]
    if found.num_classes == 1 and not found.dense:
        lines.append("as a classification it answers yes or no, with two logits, of which the first is 0")
    methods = (f"{', '.join(methods_for({'logits'}, task))} for {task}" for task in found.tasks)
    lines.append(f"only its logits are to be had, so these methods work: {'; '.join(methods)}")
    size = "SIZE" if all(found.open_sides) else f"{height}x{width}".replace("any", "SIDE")
    flag = f" --input-size {size}" if any(found.open_sides) else ""
    return tuple(lines), f"Use it with --teacher {path}{flag}; its student is a network by name, or --student auto."


def _known_network(path: Path, kind: Kind) -> tuple[str, nn.Module] | None:
    """The architecture that the file's weights are those of, and a network of it with these weights."""
    try:
        tensors, _ = network_tensors(path.name, read_trusted(path, kind).tensors)
    except InputRefused:  # no weights by name, as in frozen TorchScript, or several networks
        return None
    tensors, _ = without_auxiliary(tensors)
    fits = matching_architectures(tensors)
    if not fits:
        return None
    network = build_network(fits[0], class_count(tensors, fits[0]) or 2, channel_count(tensors, fits[0]) or 3)
    network.load_state_dict(tensors, strict=False)  # counters of batch norms may be missing
    return fits[0], network.eval()


def _more_than(
    known: tuple[str, nn.Module], path: Path, kind: Literal["torchscript", "pt2"], stated: StatedSize | None
) -> NetworkFile | None:
    """The file's own network, where it answers otherwise than the known one within it."""
    architecture, network = known
    try:
        found = read_torch(path, kind, stated)
        images = torch.rand(NUM_PROBES, *found.image_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            own, other = open_network(kind, found.content)(images), network.float()(images)
    except (CompressError, RuntimeError, ValueError):  # in this form it cannot be run, and its weights can be used
        return None
    if own.shape == other.shape and float((own - other).abs().max() / own.abs().max().clamp_min(1e-6)) <= SAME:
        return None
    note = (
        f"{path.name} holds the weights of {architecture} and answers otherwise than that network does, so it is run "
        f"as it is; --arch {architecture} takes the weights alone."
    )
    return replace(found, notes=(*found.notes, note))


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
            "Leave that out; for methods that use layers give the network's weights, where its architecture is known.",
        )
