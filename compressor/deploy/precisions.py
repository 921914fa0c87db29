"""The fp16 and int8 files of one network, each fit for what the target's runtime takes (`exporters.routes`).

A precision that cannot be made is a row without a file and with the reason; the rest of the run goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.deploy.calibration_images import CalibrationImages, Judges, confidences
from compressor.deploy.variants import Model, Variant, made_for
from compressor.inputs.card import Task
from exporters.calibration import ActivationRanges, collect_ranges, range_agreement
from exporters.errors import ExportError
from exporters.int8_search import Int8Choice, search_int8
from exporters.logits import BATCH, batches, fitting_batch, logits_in_batches, onnx_logits
from exporters.onnx_files import OnnxFile, classifier_interface, load_onnx, opset_of
from exporters.onnx_to_fp16 import fp16_from_onnx, overflowing_nodes
from exporters.onnx_to_int8 import needs_reduced_range
from exporters.parity import Outputs, Parity, compare
from exporters.routes import Build, Route, route_for
from exporters.runners import OnnxRunner
from profiles.schema import DeviceProfile, Precision

# Overflow is looked for, and parity taken, on this many images of each kind; int8's ranges on all of them.
LOOKED_AT = 64
LEAST_LOOKED_AT = 2
KEPT_LOGITS = 2**24  # of each kind of image: 64 MiB, which class maps of 64 images may exceed

# Stands in report.json, which has no infinity, for logits that are not finite.
UNUSABLE_ERROR = 1e9

Note = Callable[[str], None]

_AGREES: Mapping[Task, str] = MappingProxyType(
    {
        "classification": "the same class on {:.1%} of {} images",
        "segmentation": "the same class on {:.1%} of the pixels of {} images",
        "regression": "explaining {:.1%} of its variance on {} images",
    }
)


@dataclass(frozen=True)
class Made:
    """What was made of one network.

    Attributes:
        variants: one for each precision, in the order of the target's.
        parity: of each variant's file against the fp32 file, by its key.
        int8: how int8 was calibrated and chosen; None where there is no int8 file.
        notes: what is unproven about the route.
        warnings: what the report must say, in sentences.
    """

    variants: tuple[Variant, ...]
    parity: dict[str, Parity]
    int8: dict[str, Any] | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The variants with their parity, as plain values for JSON."""
        parities = {key: asdict(parity) for key, parity in self.parity.items()}
        return [{**variant.to_dict(), "parity": parities.get(variant.key)} for variant in self.variants]


def make_precisions(
    source: Path,
    folder: Path,
    model: Model,
    target: DeviceProfile,
    precisions: Collection[Precision],
    images: CalibrationImages,
    *,
    max_drop: float,
    note: Note,
    task: Task = "classification",
) -> Made:
    """Write `<model>.fp16.onnx` and `<model>.int8.onnx`, as far as the target takes them.

    Args:
        source: the fp32 file, in a folder beside `folder`.
        max_drop: points of agreement with the fp32 file that int8 may lose before layers go back to float.
        note: hears one line for every file.
        task: what its outputs are, and so what agreement is.

    Raises:
        ExportError: the source cannot be read, or the target is said to run two kinds of TensorRT.
    """
    work = _Work(source, folder, model, target, images, max_drop, task)
    variants: list[Variant] = []
    parity: dict[str, Parity] = {}
    warnings: list[str] = []
    int8: dict[str, Any] | None = None
    for build in work.route.builds:
        if build.precision not in precisions:
            continue
        row = Variant(model, build.precision, None, made_for(work.route, build))
        try:
            one = work.make(build)
            found = work.parity(one) if build.file == build.precision else None
        except ExportError as error:
            variants.append(replace(row, note=f"not made: {error.received}"))
            warnings.append(f"{model} {build.precision} was not made. {error.received} {error.expected}")
            continue
        row = replace(
            row,
            file=one.file.path.relative_to(folder.parent).as_posix(),
            size_mib=one.file.size_mib,
            sha256=one.file.sha256,
            optimise=one.optimise,
            judged=found is not None,
            note="; ".join(one.remarks) or None,
        )
        variants.append(row)
        warnings += one.warnings
        int8 = one.int8 or int8
        line = f"{model} {build.precision}: {one.file.size_mib:.2f} MiB for {row.made_for}"
        if found is not None:
            parity[row.key] = found
            line += f", within {found.max_rel:.1e} of fp32, {_AGREES[task].format(found.top1_agreement, found.count)}"
        note(line)
    return Made(tuple(variants), parity, int8, work.route.notes, tuple(warnings))


@dataclass(frozen=True)
class _One:
    """One file: how ONNX Runtime may run it, what a reader must know of it, and how int8 was found."""

    file: OnnxFile
    optimise: bool = True
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    int8: dict[str, Any] | None = None


class _Work:
    """One network's fp32 file, and what its other files are made with."""

    def __init__(
        self,
        source: Path,
        folder: Path,
        model: Model,
        target: DeviceProfile,
        images: CalibrationImages,
        max_drop: float,
        task: Task,
    ) -> None:
        self.source, self.folder, self.model, self.target = source, folder, model, target
        self.images, self.max_drop, self.task = images, max_drop, task
        self.outputs: Outputs = "values" if task == "regression" else "classes"
        proto = load_onnx(source)
        self.interface = classifier_interface(proto, source.name)
        self.route: Route = route_for(target, opset_of(proto))
        self.reduce_range = target.this_host and needs_reduced_range()
        per_image = self.interface.num_classes * math.prod(self.interface.output_size)
        kept = max(LEAST_LOOKED_AT, min(LOOKED_AT, KEPT_LOGITS // per_image))
        self.looked_at = np.concatenate([images.real[:kept], images.synthetic[:kept]])
        self.reference = onnx_logits(source, self.looked_at)

    def make(self, build: Build) -> _One:
        match build.file:
            case "fp32":
                return self._as_it_is(build)
            case "fp16":
                return self._fp16()
            case "int8":
                return self._int8()

    def parity(self, one: _One) -> Parity:
        """Against the fp32 file.

        Raises:
            ExportError: a logit is not finite; the file is removed.
        """
        logits = onnx_logits(one.file.path, self.looked_at, optimise=one.optimise)
        found = compare(self.reference, logits, outputs=self.outputs)
        if not math.isfinite(found.max_rel):
            one.file.path.unlink()
            raise ExportError(
                f"Logits of {one.file.path.name} are not finite.",
                "A file that computes what the fp32 file computes was expected.",
                "Ship another precision.",
            )
        return found

    def _as_it_is(self, build: Build) -> _One:
        """The fp32 file itself, which TensorRT 8 may be told to lower."""
        file = _described(self.source)
        if build.precision == "fp32":
            return _One(file)
        remarks = ["TensorRT 8 lowers the fp32 file on the device, so nothing of it was judged here"]
        if hot := self._hot():
            remarks.append(f"{len(hot)} nodes have activations beyond what fp16 holds")
        return _One(file, remarks=tuple(remarks))

    def _fp16(self) -> _One:
        made = fp16_from_onnx(self.source, self.folder / f"{self.model}.fp16.onnx", keep_fp32=self._hot())
        count = len(made.fp32_nodes)
        return _One(made.file, remarks=(f"{count} nodes stay fp32",) if count else ())

    def _int8(self) -> _One:
        judges = self.images.judges(
            self._sure if self.outputs == "classes" else None, all_or_nothing=self.task == "classification"
        )
        real = collect_ranges(self.source, [self.images.real]) if len(self.images.real) else None
        synthetic = collect_ranges(self.source, [self.images.synthetic]) if len(self.images.synthetic) else None
        optimise = self.route.int8_float == "fp32"
        choice = search_int8(
            self.source,
            self.folder / f"{self.model}.int8.onnx",
            form=self.route.int8_form,
            calibration_sets=[found for found in (real, synthetic) if found is not None],
            judge=judges.images,
            max_drop=self.max_drop,
            finish=None if optimise else self._float_part_to_fp16(),
            optimise=optimise,
            reduce_range=self.reduce_range,
            outputs=self.outputs,
        )
        remarks: list[str] = []
        if choice.float_groups:
            remarks.append(f"{len(choice.float_groups)} of {choice.num_groups} groups of layers stay float")
        if self.reduce_range:
            remarks.append("weights in 7 bits, since this processor has no VNNI")
        elif self.route.runtime == "onnxruntime" and not self.target.this_host:
            remarks.append("it would saturate on an x86 processor without VNNI")
        warnings = (*self.images.warnings, *filter(None, [judges.warning]))
        calibration = self._calibration(choice, judges, real, synthetic)
        return _One(choice.file, optimise, tuple(remarks), warnings, calibration)

    def _sure(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """How sure the fp32 file is of each image."""
        size = fitting_batch(self.interface.output_size, BATCH)
        with OnnxRunner(self.source) as runner:
            return np.concatenate([confidences(logits) for logits in logits_in_batches(runner, images, size)])

    def _hot(self) -> tuple[str, ...]:
        return overflowing_nodes(self.source, batches(self.source, self.looked_at))

    def _float_part_to_fp16(self) -> Callable[[Path], None]:
        hot = self._hot()

        def convert(path: Path) -> None:
            fp16_from_onnx(path, path, keep_fp32=hot)

        return convert

    def _calibration(
        self, choice: Int8Choice, judges: Judges, real: ActivationRanges | None, synthetic: ActivationRanges | None
    ) -> dict[str, Any]:
        """`Int8Calibration` of the report, without what the evidence says."""
        of_pool = self.images.of_pool
        agreed = None if real is None or synthetic is None or of_pool else range_agreement(real, synthetic)
        num_patterns = len(self.images.synthetic) if self.images.patterns else 0
        return {
            "model": self.model,
            "method": choice.method,
            "num_real": 0 if of_pool else len(self.images.real),
            "num_pool": len(self.images.real) if of_pool else 0,
            "num_generated": len(self.images.synthetic) - num_patterns,
            "num_patterns": num_patterns,
            "generator_note": self.images.generator_note,
            "range_agreement_median": agreed and agreed.median_ratio,
            "range_agreement_lowest": agreed and agreed.lowest_ratio,
            "float_layers": list(choice.float_groups),
            "trials": [
                {**asdict(trial), "logit_error": min(trial.logit_error, UNUSABLE_ERROR)} for trial in choice.trials
            ],
            "judged_on": judges.words,
            "num_judged": len(judges.images),
            "drop_points": choice.drop_points,
            "max_drop": self.max_drop,
            "limit_held": choice.limit_held,
        }


def _described(path: Path) -> OnnxFile:
    content = path.read_bytes()
    return OnnxFile(path, opset_of(load_onnx(path)), len(content) / 2**20, hashlib.sha256(content).hexdigest())
