"""Taking in a teacher: what the file is, which network it fits, and what is known about that network's input.

    t.pt -> contents, read without running code -> the network's tensors -> facts about the input -> checked against the
    weights

What the card or the flags say must agree with what the weights say. Mean and standard deviation, where nobody states
them, are left open for `normalisation`, which tries candidates on the samples.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.card import TeacherCard
from compressor.inputs.card_facts import (
    DEFAULT,
    FROM_CHECKPOINT,
    FROM_FILE,
    FROM_FLAG,
    FROM_WEIGHTS,
    Facts,
    read_card_file,
)
from compressor.inputs.checkpoint_file import Contents, Kind, open_contents
from compressor.inputs.identify import (
    OPTIONAL_SUFFIX,
    absent_architectures,
    channel_count,
    class_count,
    compare,
    expected_forms,
    layer_types,
    matching_architectures,
    nearest_architectures,
    without_auxiliary,
)
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.network_file import NetworkFile, check_classes
from compressor.inputs.network_intake import described_onnx, network_in
from compressor.inputs.one_logit import ONE_LOGIT, answering_both, with_two_logits
from compressor.inputs.own_code import OwnCode, is_own_name, module_path, own_code
from compressor.inputs.own_teacher import check_own_output, know_the_own_network
from compressor.inputs.refusals import KNOWN, existing_file, listed, refuse_kind, way_forward
from compressor.inputs.trusted_file import PICKLED_KINDS, TRUSTED_KINDS, read_trusted
from compressor.inputs.wrapped import network_tensors
from compressor.students.architectures import ARCHITECTURES, is_architecture, teacher_architectures
from compressor.students.timm_networks import PREFIX as TIMM
from exporters.files import sha256_of

NO_FLAGS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class CheckpointReport:
    """What `compress inspect` says of a file.

    Attributes:
        reason: why the file is unreadable or not a checkpoint.
        imports: what reading the file the ordinary way would import, beyond what torch allows.
        num_values: numbers in floating-point tensors: parameters, and the running statistics of batch norms.
        dtypes: number of tensors by dtype.
        non_finite: names of tensors that hold NaN or infinity.
        first_tensors: the first ten names and shapes.
        architectures: teachers that the tensors fit key by key and shape by shape.
        notes: what was chosen between, where a file holds more than one network's weights.
        way_forward: what to do with this file.
    """

    path: str
    size_bytes: int
    sha256: str
    kind: Kind
    reason: str
    imports: tuple[str, ...]
    num_tensors: int
    num_values: int
    dtypes: dict[str, int]
    non_finite: tuple[str, ...]
    first_tensors: tuple[tuple[str, tuple[int, ...]], ...]
    card: object
    architectures: tuple[str, ...]
    notes: tuple[str, ...]
    way_forward: str

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """The report for a terminal, one line per fact."""
        lines = [f"{self.path}: {self.kind}", f"  {self.size_bytes:,} bytes, sha256 {self.sha256}"]
        if self.reason:
            lines.append(f"  {self.reason}")
        if self.imports:
            lines.append(f"  reading it the ordinary way would import {', '.join(self.imports)}")
        lines += [f"  {note}" for note in self.notes]
        if self.num_tensors:
            dtypes = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
            lines.append(f"  {self.num_tensors} tensors ({dtypes}), {self.num_values:,} values")
            lines += [f"    {name} {shape}" for name, shape in self.first_tensors]
            lines.append(
                f"  NaN or infinity in {listed(self.non_finite)}" if self.non_finite else "  all values are finite"
            )
            lines.append(f"  fits {', '.join(self.architectures) or 'no architecture that can be a teacher'}")
        if isinstance(self.card, dict):
            lines += ["  card", *(f"    {name}: {value}" for name, value in self.card.items())]
        return "\n".join([*lines, f"  {self.way_forward}"])


@dataclass(frozen=True)
class TeacherSource:
    """A teacher's weights and everything that is known of its input.

    Attributes:
        state_dict: on the CPU, in memory of its own, with the keys and shapes of the architecture.
        card: None where mean and std are stated nowhere.
        card_facts: the card's fields; without `mean` and `std` (and perhaps `value_range`) where `card` is None.
        origin: by field: the checkpoint, a card's file name, a flag, the weights, an assumption, or the default.
        sha256: of the file.
        warnings: what was assumed, in sentences for the report.
    """

    state_dict: dict[str, Tensor]
    card: TeacherCard | None
    card_facts: dict[str, Any]
    origin: dict[str, str]
    sha256: str
    warnings: tuple[str, ...]

    def card_with(
        self, mean: tuple[float, ...], std: tuple[float, ...], value_range: tuple[float, float] = (0.0, 1.0)
    ) -> TeacherCard:
        """The card with a normalisation that was chosen elsewhere."""
        return TeacherCard.model_validate({**self.card_facts, "mean": mean, "std": std, "value_range": value_range})


def inspect_checkpoint(path: Path) -> CheckpointReport:
    """Describe a file without running its code.

    Raises:
        InputRefused: there is no such file.
    """
    path = existing_file(path)
    contents = open_contents(path)
    notes: tuple[str, ...] = contents.notes
    forward = None
    if contents.kind == "ONNX":
        described, forward = described_onnx(path)
        notes += described
    try:
        tensors, said = network_tensors(path.name, contents.tensors)
        notes += tuple(said)
    except InputRefused as refused:  # several networks, of which a run must be told one
        tensors, notes = dict(contents.tensors), (*notes, f"{refused.received} {refused.action}")
    architectures = matching_architectures(without_auxiliary(tensors)[0])
    return CheckpointReport(
        path=str(path),
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        kind=contents.kind,
        reason=contents.reason,
        imports=contents.imports,
        num_tensors=len(tensors),
        num_values=sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        non_finite=_non_finite(tensors),
        first_tensors=tuple((name, tuple(tensor.shape)) for name, tensor in list(tensors.items())[:10]),
        card=contents.card,
        architectures=architectures,
        notes=notes,
        way_forward=forward or way_forward(path, contents, architectures),
    )


def read_teacher(
    path: Path,
    *,
    architecture: str | None = None,
    card_file: Path | None = None,
    feature_layer: str | None = None,
    classifier_layer: str | None = None,
    weights_key: str | None = None,
    trust_pickle: bool = False,
    code: Path | None = None,
    overrides: Mapping[str, object] = NO_FLAGS,
) -> TeacherSource:
    """Read a teacher, check it whole, and gather what is known of its input.

    Args:
        path: a compress checkpoint, or weights of a known architecture: a state dict, a training checkpoint, a
            safetensors file, or with `trust_pickle` what has to run code to give its weights; or a network that is run
            from its file (`network_intake`).
        architecture: the flag --arch; without it the one that the weights fit.
        card_file: a YAML card; without it `<stem>.yaml` beside the teacher is used where it exists.
        feature_layer: module whose output is the last feature map, where it is not the architecture's usual one.
        classifier_layer: the final layer, likewise.
        weights_key: where in a training checkpoint the weights are; without it `training_file` chooses.
        trust_pickle: the file may run code.
        code: Python file with the classes that the file was saved from, or with the factory that `architecture` names;
            without it that is looked for in the current folder.
        overrides: card fields from flags, and `input_size` (pixels, or height and width); None counts as not given.

    Raises:
        InputRefused: the file, the card or their fit is not usable.
        UsageFault: a flag names an architecture or a layer that does not exist.
    """
    path = existing_file(path)
    contents = open_contents(path, weights_key)
    flags = {
        "architecture": architecture,
        "feature_layer": feature_layer,
        "classifier_layer": classifier_layer,
        **overrides,
    }
    stated = {name: value for name, value in flags.items() if value is not None}
    input_size = stated.pop("input_size", None)
    if card_file is None and path.with_suffix(".yaml").is_file():
        card_file = path.with_suffix(".yaml")
    told = _facts(path.name, None, card_file, stated)
    network = network_in(
        path, contents.kind, told, input_size=input_size, weights_key=weights_key, trust_pickle=trust_pickle
    )
    if network is not None:
        return _run_from_its_file(path, contents.kind, network, told, flag_says_size=input_size is not None)

    own = None
    if architecture is not None and is_own_name(architecture):
        own = own_code(architecture, code or module_path(Path.cwd(), architecture))
    contents, warnings = _weights(path, contents, weights_key, own or code, trust_pickle=trust_pickle)
    facts = _facts(path.name, contents, card_file, stated)
    if own is not None:
        warnings.append(know_the_own_network(facts, own, input_size))
    tensors, said = network_tensors(path.name, contents.tensors, architecture)
    warnings += said
    tensors, num_auxiliary = (tensors, 0) if is_own_name(architecture) else without_auxiliary(tensors)
    name = _known_architecture(facts, tensors)

    task = facts.settle_task(name, ARCHITECTURES[name].tasks)

    if num_auxiliary:
        warnings.append(
            f"The {num_auxiliary} tensors of the auxiliary classifier in {path.name} were dropped: they help only in "
            "training."
        )
    classes, channels = class_count(tensors, name), channel_count(tensors, name)
    if classes == 1 and task == "classification":
        tensors, classes = with_two_logits(facts, tensors, ARCHITECTURES[name].classifier_layer), 2
        warnings.append(ONE_LOGIT)
    if classes is not None and classes < 2 and task != "regression":
        raise InputRefused(
            f"The teacher {path.name} has {classes} classes.",
            f"A {task} of at least 2 classes was expected.",
            "Give a teacher whose final layer has one output per class, and two for a yes-or-no question.",
        )
    warnings += facts.complete(
        ARCHITECTURES[name].family, classes or 2, channels or ARCHITECTURES[name].only_channels or 3, input_size
    )
    card = facts.card()
    if differences := compare(name, tensors, card.width):
        _refuse_architecture(facts, str(differences), tensors)
    _check_size(facts, card)
    _check_against_weights(facts, card, classes, channels)
    _check_layers(facts, card)
    if is_own_name(name):
        check_own_output(card)
    if bad := _non_finite(tensors):
        raise InputRefused(
            f"The teacher {path.name} holds NaN or infinity in {listed(bad)}.",
            "Every weight was expected to be a finite number.",
            "Give an earlier checkpoint of this training, from before it diverged.",
        )

    state_dict = {key: _as_our_own(tensor) for key, tensor in tensors.items()}
    for key in expected_forms(name, card.num_classes, card.input_shape[0], card.width):
        if key.endswith(OPTIONAL_SUFFIX):
            state_dict.setdefault(key, torch.tensor(0))
    known = facts.known(card)
    return TeacherSource(
        state_dict=state_dict,
        card=card if facts.are_normalised else None,
        card_facts=known,
        origin={field: facts.origin.get(field, DEFAULT) for field in known},
        sha256=sha256_of(path),
        warnings=tuple(warnings),
    )


def save_checkpoint(path: Path, state_dict: Mapping[str, Tensor], card: TeacherCard) -> None:
    """Write a compress checkpoint, whole or not at all; equal weights and cards give equal bytes."""
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # An open file rather than a name: torch would write the temporary name into the archive.
        with temporary.open("wb") as file:
            torch.save({"state_dict": weights, "card": card.model_dump(mode="json")}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _facts(file: str, contents: Contents | None, card_file: Path | None, stated: Mapping[str, object]) -> Facts:
    """What is stated, the last word last: by the file itself, by a card, by flags."""
    facts = Facts(file)
    if contents is not None and contents.card is not None:
        facts.state_all(contents.card, FROM_CHECKPOINT if contents.kind != "safetensors" else "the file's metadata")
    if card_file is not None:
        facts.state_all(read_card_file(card_file), card_file.name)
    facts.state_all(stated, FROM_FLAG)
    return facts


def _run_from_its_file(
    path: Path, kind: Kind, found: NetworkFile, facts: Facts, *, flag_says_size: bool
) -> TeacherSource:
    """The source of a teacher whose layers nobody knows."""
    facts.state("architecture", found.kind, FROM_FILE)
    task = facts.settle_task(found.kind, found.tasks)
    warnings = [] if found.kind == "onnx" else [_code_was_run(path, kind)]
    if found.num_classes == 1 and task == "classification":
        found = answering_both(facts, found)
        warnings.append(ONE_LOGIT)
    check_classes(path.name, found.num_classes, task)
    if flag_says_size or "input_shape" not in facts.values:
        facts.state("input_shape", list(found.image_shape), found.size_from)
    warnings += [*found.notes, *facts.complete(found.kind, found.num_classes, found.image_shape[0], None)]
    card = facts.card()
    _check_against_weights(facts, card, found.num_classes, found.image_shape[0])
    known = facts.known(card)
    return TeacherSource(
        state_dict=found.state_dict(),
        card=card if facts.are_normalised else None,
        card_facts=known,
        origin={field: facts.origin.get(field, DEFAULT) for field in known},
        sha256=sha256_of(path),
        warnings=tuple(warnings),
    )


def _code_was_run(path: Path, how: str) -> str:
    return f"Code was run while {path.name} was read ({how}), because --trust-pickle allowed it."


def _weights(
    path: Path, contents: Contents, weights_key: str | None, code: Path | OwnCode | None, *, trust_pickle: bool
) -> tuple[Contents, list[str]]:
    """What the file holds, if that is a network's weights, and sentences for the report."""
    warnings = list(contents.notes)
    if trust_pickle and contents.kind in TRUSTED_KINDS and not contents.tensors:
        ran: str = contents.kind
        if code is not None and contents.kind in PICKLED_KINDS:
            ran = f"{contents.kind}, with the code of {code.files[0] if isinstance(code, OwnCode) else code.name}"
        contents = read_trusted(path, contents.kind, code, weights_key)
        warnings = [_code_was_run(path, ran), *contents.notes]
    if not contents.tensors:
        refuse_kind(path, contents)
    return contents, warnings


def _as_our_own(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, in the usual order of dimensions; fractions in single precision."""
    own = tensor.detach().clone(memory_format=torch.contiguous_format)
    return own.float() if own.is_floating_point() else own


def _known_architecture(facts: Facts, tensors: Mapping[str, Tensor]) -> str:
    """The architecture that the card or the flag names, or else the one that the weights fit."""
    name = facts.values.get("architecture")
    names = teacher_architectures()
    if is_architecture(name):
        return str(name)
    fits = matching_architectures(tensors)
    if name is None and fits:
        if fits[0].startswith(TIMM) and len(fits) > 1:
            raise InputRefused(
                f"The teacher {facts.file} has the names and shapes of several networks: {listed(fits)}.",
                "These compute different things with the same weights, as padding and activations are no weights.",
                f"Name the one that it was trained as, such as --arch {fits[0]}.",
            )
        facts.state("architecture", fits[0], FROM_WEIGHTS)
        return fits[0]
    if name is None and (absent := absent_architectures(tensors)):
        raise InputRefused(
            f"The teacher {facts.file} has the names and shapes of {listed(absent)}.",
            "The package timm was expected, and is not installed.",
            "Install it with `pip install timm`, then run the same command again.",
        )
    if name is None:
        raise InputRefused(
            f"The teacher {facts.file} fits no known architecture: {_nearest(tensors)}.",
            KNOWN,
            "Name your own network with --arch module:factory, or give it as an ONNX file, of which logits are used; "
            "where it is a known one of another width or with renamed layers, name that, and state width in a card.",
        )
    source = facts.origin["architecture"]
    error: type[CompressError] = UsageFault if source == FROM_FLAG else InputRefused
    if is_own_name(name):
        raise error(
            f"The architecture '{name}' from {source} names code, which would have to run.",
            "Code runs where the flag --arch names it, and not because a card or a checkpoint does.",
            f"Where it is your own, add --arch {name}.",
        )
    if str(name).startswith(TIMM):
        raise error(
            f"The architecture '{name}' from {source} is not to be had here.",
            "The package timm, installed, and a network of it with one linear classifier were expected.",
            "Install it with `pip install timm`, or correct the name; `timm.list_models()` lists them.",
        )
    raise error(
        f"The architecture '{name}' from {source} is unknown.",
        KNOWN,
        f"The weights fit {fits[0]}." if fits else did_you_mean(str(name), names) or "Choose one of them.",
    )


def _nearest(tensors: Mapping[str, Tensor]) -> str:
    """The architectures that come closest, each with its first differing keys."""
    near = nearest_architectures(tensors)
    return "; ".join(f"{name} is near, with {differences}" for name, differences in near) or "none is near"


def _refuse_architecture(facts: Facts, differences: str, tensors: Mapping[str, Tensor]) -> NoReturn:
    name, source = facts.values["architecture"], facts.origin["architecture"]
    fits = matching_architectures(tensors)
    raise InputRefused(
        f"The weights of the teacher {facts.file} are not those of {name}, which {source} names: {differences}.",
        f"The keys and shapes of {name} were expected.",
        f"The weights fit {fits[0]}: name that one with --arch {fits[0]}."
        if fits
        else "Name the factory of the very network that these weights were saved from, with the same arguments."
        if is_own_name(name)
        else f"They fit no other architecture either ({_nearest(tensors)}), so give a teacher of a known one.",
    )


def _check_size(facts: Facts, card: TeacherCard) -> None:
    side = ARCHITECTURES[card.architecture].only_size
    if side is not None and card.input_shape[1:] != (side, side):
        source = facts.origin["input_shape"]
        height, width = card.input_shape[1:]
        raise InputRefused(
            f"The teacher {facts.file} is a {card.architecture}, and {source} states an input of {height}x{width}.",
            f"A {card.architecture} takes {side}x{side} pixels and nothing else: its weights name positions.",
            f"Leave the input size out, or state --input-size {side}.",
        )


def _check_against_weights(facts: Facts, card: TeacherCard, classes: int | None, channels: int | None) -> None:
    for field, stated, found, what in (
        ("num_classes", card.num_classes, classes, "classes"),
        ("input_shape", card.input_shape[0], channels, "image channels"),
    ):
        if stated != found:
            source = facts.origin[field]
            raise InputRefused(
                f"The weights of the teacher {facts.file} have {found} {what} and {source} states {stated}.",
                "The card and the weights were expected to agree.",
                f"Correct {field} in the card, or give the checkpoint that the card was written for.",
            )


def _check_layers(facts: Facts, card: TeacherCard) -> None:
    layers = layer_types(card.architecture)
    linear = [name for name, kind in layers.items() if issubclass(kind, nn.Linear)]
    for field, layer, options in (
        ("feature_layer", card.feature_layer, list(layers)),
        ("classifier_layer", card.classifier_layer, linear),
    ):
        if layer is not None and (layer not in options or card.task == "segmentation"):
            source = facts.origin[field]
            error: type[CompressError] = UsageFault if source == FROM_FLAG else InputRefused
            if card.task == "segmentation":
                raise error(
                    f"The {field} of the segmentation {facts.file} is '{layer}' in {source}.",
                    "Layers are named where a classifier is to be shared, which no method does for a segmentation.",
                    "Leave it out.",
                )
            raise error(
                f"The {field} '{layer}' from {source} is not a layer of {card.architecture} that can be one.",
                f"Possible are {listed(options)}.",
                did_you_mean(layer, options) or "Leave it out to use the architecture's own.",
            )


def _non_finite(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of tensors that hold NaN or infinity; one tensor at a time, because files can be large."""
    bad = []
    for name, tensor in tensors.items():
        # isfinite does not know every 8-bit format.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if tensor.is_floating_point() and not torch.isfinite(values).all():
            bad.append(name)
    return tuple(bad)
