"""The int8 file that keeps a network's answers: which calibration, and which layers go back to float.

In: a float32 ONNX classifier, images to calibrate on, and other images to judge on. Out: a file, and every trial.

    1. Each calibration method (min-max, entropy, percentile) makes a file. One that holds the limit beats one that does
       not; among equals the smaller error of the logits wins, then the higher agreement.
    2. Where none holds it, each group of layers is put back to float alone; the smaller the error, the more sensitive.
    3. Groups go back to float, most sensitive first, until the limit holds or the next would leave nothing in int8.

Every candidate is judged against the float32 file, as it would ship: after `finish` has converted its float part. The
images of `judge` choose; they are no evidence afterwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporters.calibration import ActivationRanges, Images, collect_ranges, merge
from exporters.errors import ExportError
from exporters.int8_placement import Group, place, quantisable_groups
from exporters.logits import BATCH, fitting_batch, logits_in_batches, onnx_logits
from exporters.onnx_files import ClassifierInterface, OnnxFile, classifier_interface, load_onnx, opset_of
from exporters.onnx_to_int8 import Range, check_quantisable, int8_from_onnx
from exporters.parity import Outputs, explained, same_class
from exporters.routes import Int8Form
from exporters.runners import OnnxRunner

Method = Literal["min-max", "entropy", "percentile"]

# Logit errors rank the groups with far fewer images than agreement needs; there are up to 16 groups to rank.
SENSITIVITY_IMAGES = 64
KEPT = 2**26  # logits of the reference, 256 MiB: those of a classifier always fit

Pair: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Trial:
    """One candidate, judged.

    Attributes:
        method: how its ranges were chosen.
        float_groups: names of the groups of layers that it keeps in float.
        logit_error: ||logits - reference|| / ||reference|| over all of them; infinite where a logit is not finite.
        agreement: with the float32 file, in [0, 1]: share of images with its class, of pixels in class maps; of a
            regression's variance, what is explained.
        num_images: how many images it was judged on.
    """

    method: Method
    float_groups: tuple[str, ...]
    logit_error: float
    agreement: float
    num_images: int


@dataclass(frozen=True)
class Int8Choice:
    """The chosen file and how it was found.

    Attributes:
        file: as it lies on disk, after `finish`.
        method: the calibration.
        float_groups: names of the groups of layers that stay float, most sensitive first.
        float_nodes: the keys of their nodes.
        num_groups: of the whole graph.
        agreement: with the float32 file on the judging images, in [0, 1].
        drop_points: 100 · (1 - agreement).
        limit_held: whether drop_points is within the limit. Where it is not, no file with int8 in it was.
        trials: all candidates in the order in which they were judged.
    """

    file: OnnxFile
    method: Method
    float_groups: tuple[str, ...]
    float_nodes: tuple[str, ...]
    num_groups: int
    agreement: float
    drop_points: float
    limit_held: bool
    trials: tuple[Trial, ...]


def search_int8(
    source: Path,
    path: Path,
    *,
    form: Int8Form,
    calibration_sets: Sequence[Images | ActivationRanges],
    judge: NDArray[np.float32],
    max_drop: float = 1.0,
    finish: Callable[[Path], None] | None = None,
    optimise: bool = True,
    reduce_range: bool = False,
    outputs: Outputs = "classes",
    metadata: Mapping[str, str] | None = None,
    observer: Callable[[Trial], None] | None = None,
) -> Int8Choice:
    """Find an int8 file that agrees with `source`, with few layers in float; the same arguments give the same file.

    Args:
        source: the float32 classifier.
        path: where the file goes; its folder exists. On an error nothing is left there.
        form: which runtime it is for.
        calibration_sets: images (B, C, H, W) in batches or in one array, or ranges that were collected from them: the
            real ones and the generated ones. All of them count.
        judge: (N, C, H, W), none of which should be among the calibration images.
        max_drop: how much agreement may be lost, in points (hundredths).
        finish: applied to every candidate file in place before it is judged, such as a conversion of its float part.
        optimise: False judges without ONNX Runtime's optimisations, which compute int8 beside fp16 wrongly.
        outputs: what two-dimensional outputs are; it decides what agreement is.
        reduce_range, metadata: as for `int8_from_onnx`.
        observer: told of every trial.

    Raises:
        ExportError: nothing can be quantised, or an argument or a file does not fit.
        OSError: the file could not be written.
    """
    proto = load_onnx(source)
    check_quantisable(proto, source.name)
    interface = classifier_interface(proto, source.name)
    groups = quantisable_groups(proto, form)
    _check(source.name, form, groups, calibration_sets, judge, max_drop)
    ranges = _collect(source, calibration_sets)
    chosen: dict[Method, dict[str, Range]] = {
        "min-max": ranges.min_max(),
        "entropy": ranges.entropy(),
        "percentile": ranges.percentile(),
    }
    reference = _Reference(source, judge, interface)
    trials: list[Trial] = []

    def holds(trial: Trial) -> bool:
        return drop_points(trial.agreement) <= max_drop

    with TemporaryDirectory(prefix=".tmp-int8-", dir=path.parent) as folder:
        candidate = Path(folder) / path.name

        def make(method: Method, in_float: Sequence[Group]) -> None:
            nodes = [node for group in in_float for node in group.nodes]
            int8_from_onnx(
                source,
                candidate,
                ranges=chosen[method],
                form=form,
                float_nodes=nodes,
                reduce_range=reduce_range,
                metadata=metadata,
            )
            if finish is not None:
                finish(candidate)

        def attempt(method: Method, in_float: Sequence[Group], count: int | None = None) -> Trial:
            make(method, in_float)
            pairs = reference.beside(candidate, count, optimise=optimise)
            trials.append(_judged(method, [group.name for group in in_float], pairs, outputs))
            if observer is not None:
                observer(trials[-1])
            return trials[-1]

        best = min(
            [attempt(method, ()) for method in chosen],
            key=lambda trial: (not holds(trial), trial.logit_error, -trial.agreement),
        )
        in_float: tuple[Group, ...] = ()
        if not holds(best) and len(groups) > 1:
            errors = {group: attempt(best.method, [group], SENSITIVITY_IMAGES).logit_error for group in groups}
            order = tuple(sorted(groups, key=lambda group: errors[group]))
            for count in range(1, len(order)):
                kept = [node for group in order[:count] for node in group.nodes]
                if not place(proto.graph, form, kept).layers:  # what is left gains nothing on its own
                    break
                trial = attempt(best.method, order[:count])
                if trial.agreement > best.agreement:
                    best, in_float = trial, order[:count]
                if holds(best):
                    break
        make(best.method, in_float)
        file = _described(candidate.replace(path))
    return Int8Choice(
        file,
        best.method,
        best.float_groups,
        tuple(node for group in in_float for node in group.nodes),
        len(groups),
        best.agreement,
        drop_points(best.agreement),
        holds(best),
        tuple(trials),
    )


def drop_points(agreement: float) -> float:
    """What is missing to full agreement, in points: 0.985 is 1.5. Rounded, as 100 images must be able to lose one."""
    return round(100.0 * (1.0 - agreement), 6)


def _check(
    name: str,
    form: Int8Form,
    groups: Sequence[Group],
    calibration_sets: Sequence[Images | ActivationRanges],
    judge: NDArray[np.float32],
    max_drop: float,
) -> None:
    if not groups:
        raise ExportError(
            f"{name} has nothing to quantise for {form}.",
            "At least one convolution or matrix product with constant float32 weights, wide enough for int8 kernels, "
            "was expected.",
            "Ship this model in fp32 or fp16.",
        )
    if not calibration_sets or judge.ndim != 4 or not len(judge):
        raise ExportError(
            f"{len(calibration_sets)} sets of calibration images and judging images of shape {judge.shape} were given.",
            "At least one set to calibrate on, and judging images of shape (images, channels, height, width), were "
            "expected.",
            "Pass the real images, generated ones, or both, and keep some of them for judging.",
        )
    if not 0.0 <= max_drop <= 100.0:
        raise ExportError(
            f"A drop of at most {max_drop:g} points was asked for.",
            "A number from 0 to 100 was expected: hundredths of the agreement with the float32 model.",
            "Choose for example 1.",
        )


def _collect(source: Path, calibration_sets: Sequence[Images | ActivationRanges]) -> ActivationRanges:
    collected = [
        images if isinstance(images, ActivationRanges) else collect_ranges(source, images)
        for images in calibration_sets
    ]
    return reduce(merge, collected)


class _Reference:
    """What the float32 file says of the judging images; class maps of many images are computed anew each time."""

    def __init__(self, source: Path, judge: NDArray[np.float32], interface: ClassifierInterface) -> None:
        self._source, self._judge, self._size = source, judge, interface.output_size
        keep = len(judge) * interface.num_classes * math.prod(interface.output_size) <= KEPT
        self._logits = onnx_logits(source, judge) if keep else None

    def beside(self, candidate: Path, count: int | None, *, optimise: bool) -> Iterator[Pair]:
        """Its logits and a candidate's, of the first `count` images, batch by batch."""
        judge = self._judge[:count]
        if self._logits is not None:
            yield self._logits[:count], onnx_logits(candidate, judge, optimise=optimise)
            return
        batch = fitting_batch(self._size, BATCH)
        with OnnxRunner(self._source) as exact, OnnxRunner(candidate, optimise=optimise) as runner:
            yield from zip(logits_in_batches(exact, judge, batch), logits_in_batches(runner, judge, batch), strict=True)


def _judged(method: Method, float_groups: Sequence[str], pairs: Iterable[Pair], outputs: Outputs) -> Trial:
    count, agreed, finite = 0, 0.0, True
    error_square = reference_square = 0.0
    values: list[Pair] = []
    for reference, logits in pairs:
        sound = np.isfinite(logits).reshape(len(logits), -1).all(axis=1)
        finite = finite and bool(sound.all())
        agreed += float((sound * same_class(reference, logits)).sum())
        count += len(reference)
        with np.errstate(invalid="ignore"):
            error_square += float(np.linalg.norm(logits.astype(np.float64) - reference)) ** 2
        reference_square += float(np.linalg.norm(reference.astype(np.float64))) ** 2
        if outputs == "values":
            values.append((reference, logits))
    known = finite and reference_square > 0.0
    error = math.sqrt(error_square) / math.sqrt(reference_square) if known else float("inf")
    if outputs == "values":
        agreement = explained(*(np.concatenate(part) for part in zip(*values, strict=True)))
    else:
        agreement = agreed / count
    return Trial(method, tuple(float_groups), error, agreement, count)


def _described(path: Path) -> OnnxFile:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return OnnxFile(path, opset_of(load_onnx(path)), len(content) / 2**20, sha256)
