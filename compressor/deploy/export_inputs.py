"""What an export starts from: the file that came, its normalisation put inside, and images without labels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from compressor.deploy.export_request import ExportRequest
from compressor.errors import InputRefused, UsageFault
from compressor.inputs.card import MAX_SIDE, MIN_SIDE, ORDER_OF, VOID, Task, TeacherCard
from compressor.inputs.masks import read_masks
from compressor.inputs.onnx_network import TRIED_WITHIN_S, as_refusal, check_fp32
from compressor.inputs.samples import UNKNOWN, SampleSet, read_samples
from compressor.report.export_schema import Source
from exporters.logits import onnx_logits
from exporters.onnx_files import ClassifierInterface, classifier_interface, load_onnx, opset_of
from exporters.onnx_normalisation import normalise_inside
from exporters.tensorrt_operators import check_operators

MOST_VALUES = 2**28  # of all images of one call: 1 GiB

# What `read_samples` says of folders named like a teacher's classes; an ONNX file has no names for its classes.
ABOUT_CLASSES = re.compile(r"Folder '|No folder is named|\d+ more folders name|.* are one picture in two classes", re.S)
NO_CLASSES = "Folders are not taken as classes, since an ONNX file does not name its own, so no accuracy is shown."


@dataclass(frozen=True)
class Classifier:
    """The file that came: its graph, which takes images in [0, 1], its interface, and what export.json says of it."""

    proto: onnx.ModelProto
    interface: ClassifierInterface
    source: Source

    @property
    def task(self) -> Task:
        """By the shape of its output; nothing tells a regression from a classification."""
        return _task(self.interface)


def read_classifier(request: ExportRequest) -> Classifier:
    """Read the source and refuse what cannot become an export.

    Raises:
        InputRefused: it is no fp32 classifier or segmenter of images with one, three or four channels that ONNX Runtime
            can run.
        UsageFault: its opset is above what the target reads, or --mean and --std are for other images.
    """
    name = request.source.name
    with as_refusal():
        proto = load_onnx(request.source)
        interface = classifier_interface(proto, name)
    _check_fit(request, interface, opset_of(proto))
    with as_refusal():
        check_fp32(proto, name)
        check_operators(proto, request.target)
        # What ONNX Runtime cannot run is refused before anything is made.
        grey = np.full((1, *interface.image_shape), 0.5, np.float32)
        onnx_logits(request.source, grey, within_s=TRIED_WITHIN_S)
        if request.mean is not None and request.std is not None:
            normalise_inside(proto, interface.input_name, mean=request.mean, std=request.std)
    source = Source(
        file=name,
        sha256=hashlib.sha256(request.source.read_bytes()).hexdigest(),
        opset=opset_of(proto),
        input_name=interface.input_name,
        image_shape=interface.image_shape,
        fixed_batch=interface.batch,
        num_classes=interface.num_classes,
        output_size=interface.output_size,
        mean=request.mean,
        std=request.std,
    )
    return Classifier(proto, interface, source)


def read_images(
    folder: Path, interface: ClassifierInterface, flag: str, scratch: Path, *, keep_duplicates: bool = False
) -> SampleSet:
    """The images in a folder without labels, and what is said of them in the words of an export.

    Args:
        flag: that the folder was given to.
        scratch, keep_duplicates: see `read_samples`.

    Raises:
        InputRefused: fewer than two images can be used.
    """
    try:
        samples = read_samples(folder, _card(interface), keep_duplicates=keep_duplicates, scratch=scratch)
    except InputRefused as error:
        action = f"Add images of the model's own task, or check the folder given to {flag}."
        raise InputRefused(_reworded(error.received), error.expected, action) from error
    told = [_reworded(text) for text in samples.warnings if not ABOUT_CLASSES.match(text)]
    if any("/" in file for file in samples.files):
        told.append(NO_CLASSES)
    return replace(
        samples,
        labels=torch.full_like(samples.labels, UNKNOWN),
        skipped=tuple((file, _reworded(reason)) for file, reason in samples.skipped),
        warnings=tuple(told),
    )


def labels_of(
    folder: Path, samples: SampleSet, interface: ClassifierInterface, scratch: Path
) -> tuple[torch.Tensor, Sequence[str]]:
    """Masks uint8 (N, H, W), 255 where unknown, where the folder has any for a segmenter; else -1, int64 (N,).

    The other value is what must be said of the masks, in sentences.
    """
    card = _card(interface)
    masks = read_masks(folder, samples.files, card, scratch) if card.task == "segmentation" else None
    return (samples.labels, ()) if masks is None else (masks.masks, [_reworded(text) for text in masks.warnings])


def _check_fit(request: ExportRequest, interface: ClassifierInterface, opset: int) -> None:
    if opset > request.target.opset_ceiling:
        raise UsageFault(
            f"{request.source.name} is written in opset {opset}.",
            f"{request.target.title} reads opset {request.target.opset_ceiling} at most.",
            "Export the model again with that opset, or choose another --target.",
        )
    channels, *sides = interface.image_shape
    if channels not in ORDER_OF:
        raise InputRefused(
            f"{request.source.name} takes images of {channels} channels.",
            "Folders hold images of 1, 3 or 4 channels.",
            "Export a model for such images.",
        )
    if interface.num_classes < 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        raise InputRefused(
            f"{request.source.name} takes images of {sides[0]} x {sides[1]} pixels and gives "
            f"{interface.num_classes} numbers for each.",
            f"Sides of {MIN_SIDE} to {MAX_SIDE} pixels and a logit for each of two classes or more were expected.",
            "Export a classifier or segmenter of such images.",
        )
    if (interface.batch or 1) * channels * sides[0] * sides[1] > MOST_VALUES:
        raise InputRefused(
            f"{request.source.name} takes {interface.batch} images in one call.",
            f"A call of at most {MOST_VALUES:,} values was expected.",
            "Export the model for a batch of any size, or for one image.",
        )
    if interface.output_size and interface.num_classes > VOID:
        raise InputRefused(
            f"{request.source.name} gives {interface.num_classes} classes to each pixel.",
            f"At most {VOID} were expected: class maps are kept as bytes.",
            "Export a model of fewer classes.",
        )
    for flag, numbers in (("--mean", request.mean), ("--std", request.std)):
        if numbers is not None and len(numbers) != channels:
            raise UsageFault(
                f"{flag} has {len(numbers)} numbers.",
                f"{request.source.name} takes images of {channels} channels.",
                "Give one number per channel, in the order of the model's channels.",
            )


def _card(interface: ClassifierInterface) -> TeacherCard:
    """How images are read for this file: to its size, as [0, 1]."""
    channels = interface.image_shape[0]
    return TeacherCard(
        architecture="onnx",
        task=_task(interface),
        num_classes=interface.num_classes,
        class_names=tuple(str(index) for index in range(interface.num_classes)),
        input_shape=interface.image_shape,
        channel_order=ORDER_OF[channels],
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def _task(interface: ClassifierInterface) -> Task:
    return "segmentation" if interface.output_size else "classification"


def _reworded(text: str) -> str:
    return text.replace("the teacher", "the model")
