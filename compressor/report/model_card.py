"""model-card.md: the student's model card, after Mitchell et al. 2019 ("Model Cards for Model Reporting"), with the
front matter that the Hugging Face Hub reads.

A card has two authors. What the run knows stands here, with its intervals. What only the holder of the teacher can
know, such as who is affected by an error, is a line that begins with `TO FILL IN`, and never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from compressor.inputs.card import Task
from compressor.report.judgements import judgements
from compressor.report.measured import Comparison, Proportion, Scores
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from compressor.report.text import (
    ACCURACY,
    AGREEMENT,
    approximate,
    conditions,
    count,
    joined,
    macs,
    median,
    params,
    percent,
    size,
    with_interval,
)
from compressor.report.untrusted import code, fenced, prose

T = TypeVar("T")

LIST_LIMIT = 100
TO_FILL_IN = "**TO FILL IN by the holder of the teacher:**"

_PIPELINE_TAGS = {"classification": "image-classification", "segmentation": "image-segmentation"}
_OUTPUTS: dict[Task, str] = {
    "classification": "logits (B, K), one for each class; a softmax makes probabilities of them",
    "segmentation": "logits (B, K, H, W), one for each class and pixel; the largest is the pixel's class",
    "regression": "numbers (B, K), in the units of the teacher",
}
_SETS = {"evidence": "held-out images of the samples", "eval": "images of --eval"}
# By what a run does with images: whether the weights, the choices or neither depend on them.
_USES = {
    "train": "real images to train on",
    "pool": "other images to train on, from a pool",
    "select": "images that choices were made on",
    "evidence": "held-out images, for the report alone",
    "eval": "images of --eval, for the report alone",
}


def model_card(report: Report) -> str:
    """The whole file, ending in a newline. The same report gives the same text."""
    sections = (
        _title,
        _details,
        _uses,
        _running,
        _training,
        _evaluation,
        _robustness,
        _limitations,
        _files,
        _provenance,
    )
    blocks = chain.from_iterable(section(report) for section in sections)
    return "\n\n".join([_front_matter(report), *blocks]) + "\n"


def _front_matter(report: Report) -> str:
    """Constants alone: a word from outside could be YAML."""
    tag = _PIPELINE_TAGS.get(report.task)
    lines = [
        "---",
        "license: unknown  # TO FILL IN: that of the teacher's holder",
        "library_name: onnx",
        *([] if tag is None else [f"pipeline_tag: {tag}"]),
        "tags:",
        "- knowledge-distillation",
        "- edge",
        "- onnx",
        "---",
    ]
    return "\n".join(lines)


def _title(report: Report) -> Iterator[str]:
    yield f"# Model card: {code(report.run_name)}"
    yield prose(report.summary.headline)


def _details(report: Report) -> Iterator[str]:
    student, teacher, source = report.student, report.teacher, report.teacher_source
    yield "## Model details"
    yield _bullets(
        [
            f"A network for {report.task}, distilled from a private teacher to run on {prose(report.target.title)}.",
            f"Architecture {code(student.architecture)}: {params(student.params_m)} parameters, {macs(student.macs_g)} "
            f"multiply-accumulates an image; the teacher has {params(teacher.params_m)} and {macs(teacher.macs_g)}.",
            f"Teacher {code(source.file)}, {code(source.architecture)}, SHA-256 {code(source.sha256)}.",
            f"Made by method {code(report.distillation.method)} of compress {code(report.tool_version)} on "
            f"{report.created:%Y-%m-%d}.",
            f"{TO_FILL_IN} who publishes the model, a contact, its version, its licence, and how to cite it.",
        ]
    )


def _uses(_: Report) -> Iterator[str]:
    yield "## Intended use"
    yield _bullets(
        [
            f"{TO_FILL_IN} the task and the setting that the model is meant for, and by whom.",
            "It takes the place of its teacher where the teacher does not fit. Whatever the teacher must not be used "
            "for, the student must not be used for either.",
        ]
    )
    yield "### What it must not be used for"
    yield _bullets(
        [
            "Images unlike those that it was evaluated on, listed below: nothing says what it does there.",
            "Decisions that need its confidence as a probability, unless the evaluation below shows its calibration.",
            f"{TO_FILL_IN} uses that the teacher's licence, its data or the law rule out, and people who could be "
            "harmed by an error.",
        ]
    )


_CHANNELS = {1: "grey", 3: "RGB", 4: "the four bands of a file"}


def _running(report: Report) -> Iterator[str]:
    source = report.teacher_source
    channels, height, width = source.input_shape
    yield "## How to run it"
    yield _bullets(
        [
            f"Input `image`: float32 (B, {channels}, {height}, {width}), {_CHANNELS[channels]}, values "
            "from 0 to 1. The file normalises them itself; do not do it again.",
            f"Output `logits`: {_OUTPUTS[report.task]}.",
            f"{'Outputs' if report.task == 'regression' else 'Classes'} in the order of the logits: "
            f"{_listed(source.class_names, code)}. The metadata of the ONNX file hold all of them under "
            "`card`, and how an image is resized and cropped.",
        ]
    )
    made = [one for one in report.variants if one.path and (one.model, one.format) == ("student", "onnx")]
    made.sort(key=lambda one: not _recommended(report, one))  # stable: fp32 is the first of the others
    path = made[0].path if made else report.student.name
    shape = ", ".join(map(str, (1, *source.input_shape)))
    lines = (
        "import numpy, onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({json.dumps(path)})",
        f"image = numpy.zeros(({shape}), numpy.float32)  # your image, values from 0 to 1",
        '(logits,) = session.run(["logits"], {"image": image})',
    )
    yield fenced("\n".join(lines)).replace("```sh", "```python", 1)


def _training(report: Report) -> Iterator[str]:
    samples, making = report.samples, report.distillation
    yield "## Training data"
    lines = [
        "The run did not ask for the data that the teacher was trained on. These are all images that it had; whether "
        "some of the real ones are of that data, only the holder of the teacher knows."
    ]
    if report.image_sets:
        lines += [f"{count(part.num_images, 'image')}: {_USES[part.name]}." for part in report.image_sets]
    else:
        for number, name in (
            (samples.num_train, "train"),
            (samples.num_pool, "pool"),
            (samples.num_select, "select"),
            (samples.num_evidence, "evidence"),
        ):
            lines += [f"{count(number, 'image')}: {_USES[name]}."] if number else []
    if samples.num_pool and not making.uses_pool:
        lines.append("The method does not train on the images of the pool.")
    if samples.num_train + samples.num_pool == 0:
        lines.append("No real image was trained on.")
    if making.generator_resolution is not None:
        height, width = making.generator_resolution
        lines.append(
            f"Images of {height}x{width} pixels that a generator drew while it was guided by the teacher; "
            "they may resemble what the teacher was trained on."
        )
    lines.append(f"{TO_FILL_IN} where the images come from, what consent or licence they have, and who is in them.")
    yield _bullets(lines)


def _evaluation(report: Report) -> Iterator[str]:
    yield "## Evaluation"
    yield (
        "Shares with their 95 % intervals, on images that no stage trained or chose on. Agreement is with the teacher, "
        "whose own errors it does not show."
    )
    shown = [one for one in report.variants if one.path and (one.model == "student" or one.precision == "fp32")]
    rows = [row for variant in shown for row in _rows(report, variant)]
    if rows:
        yield _table(("artefact", "what", "images", "share"), rows)
    else:
        yield "No image was given to evaluate on, so nothing says how good the student is."
    speeds = [line for variant in shown for line in _speed(variant)]
    yield _bullets([*_calibration(report), *(speeds or ["No latency was measured."])])


def _rows(report: Report, variant: Variant) -> Iterator[tuple[str, str, str, str]]:
    name = f"**{prose(variant.label)}**" if _recommended(report, variant) else prose(variant.label)
    measured: tuple[tuple[Scores, Callable[[Proportion], str]], ...] = (
        (variant.agreement, lambda share: f"{AGREEMENT[share.of]} with the teacher"),
        (variant.accuracy, lambda share: ACCURACY[share.of]),
        (variant.mean_iou, lambda share: f"{AGREEMENT[share.of]} with the teacher"),
        (variant.mean_iou_masks, lambda share: f"{AGREEMENT[share.of]} with masks"),
    )
    for scores, called in measured:
        for images, share in (("evidence", scores.evidence), ("eval", scores.eval)):
            if share is not None:
                yield name, called(share), f"{share.n:,} {_SETS[images]}", with_interval(share)


def _calibration(report: Report) -> Iterator[str]:
    for comparison in (report.comparison_evidence, report.comparison_eval):
        if not isinstance(comparison, Comparison):
            continue
        for found in (comparison.calibration_labels, comparison.calibration):
            if found is not None:
                whose = "labels" if found.against == "labels" else "the teacher's classes"
                images = count(found.n, "image")
                yield f"Student fp32, expected calibration error against {whose}, {images}: {percent(found.error)}."


def _speed(variant: Variant) -> Iterator[str]:
    label = prose(variant.label)
    for latency in (variant.latency_host, variant.latency_target):
        if latency is not None:
            yield f"{label}, p50 in ms: {prose(median(latency))}; {prose(conditions(latency))}."
    predicted = variant.latency_predicted
    if variant.latency_target is None and predicted is not None:
        yield f"{label}: {prose(approximate(predicted, ' ms'))} predicted for {prose(predicted.device)}, not measured."


def _robustness(report: Report) -> Iterator[str]:
    yield "## Robustness"
    if not report.robustness:
        yield "Not measured. Nothing says how the student behaves on blurred, noisy or otherwise changed images."
        return
    rows = [
        (
            f"{row.corruption}, {prose(row.strength)}",
            with_interval(row.agreement),
            with_interval(row.student_kept),
            with_interval(row.teacher_kept),
        )
        for row in report.robustness
    ]
    header = ("images changed by", "agreement with the teacher", "student keeps its answer", "teacher keeps its answer")
    yield _table(header, rows)


def _limitations(report: Report) -> Iterator[str]:
    yield "## Limits and warnings"
    lines = [f"{one.kind.capitalize()}, {one.state}: {prose(one.sentence)}" for one in judgements(report)]
    lines += map(prose, report.warnings[:LIST_LIMIT])
    if (rest := len(report.warnings) - LIST_LIMIT) > 0:
        lines.append(f"and {count(rest, 'more warning')} in report.json")
    unseen = _unseen(report)
    if unseen:
        lines.append(f"The teacher gives no image of the samples to {_listed(unseen, code)}.")
    lines += [f"{one.model} int8: {prose(_calibrated(one.num_real, one.num_generated))}." for one in report.int8]
    lines.append("The student has its teacher's errors and biases, and some of its own where they disagree.")
    lines.append(f"{TO_FILL_IN} known weaknesses of the teacher, and groups of people or conditions to test for.")
    yield _bullets(lines)


def _unseen(report: Report) -> list[str]:
    if report.task == "regression" or not any(report.samples.pseudo_labels):
        return []
    pairs = zip(report.teacher_source.class_names, report.samples.pseudo_labels, strict=True)
    return [name for name, number in pairs if number == 0]


def _calibrated(num_real: int, num_generated: int) -> str:
    parts = [f"{number:,} {kind}" for number, kind in ((num_real, "real"), (num_generated, "generated")) if number]
    return f"ranges from {joined(parts)} images" if parts else "ranges from no image of the task"


def _files(report: Report) -> Iterator[str]:
    yield "## Files"
    rows = [(code(file.path), size(file.size_bytes / 2**20), code(file.sha256)) for file in report.artefacts]
    yield _table(("file", "size", "SHA-256"), rows)


def _provenance(report: Report) -> Iterator[str]:
    environment = report.environment
    yield "## Provenance"
    yield _bullets(
        [
            f"Seed {report.distillation.seed}; Python {prose(environment.python)}, torch {prose(environment.torch)}, "
            f"onnxruntime {prose(environment.onnxruntime)}, {prose(environment.os)}, {prose(environment.cpu)}"
            f"{'' if environment.gpu is None else f', {prose(environment.gpu)}'}.",
            "`report.json` has every number, `manifest.json` every input, setting, stage and file by hash, `sbom.json` "
            "the software.",
        ]
    )
    yield "report.json of the run has the command that makes it again, with the paths of whoever made it."


def _recommended(report: Report, variant: Variant) -> bool:
    return report.recommendation is not None and report.recommendation.takes(variant)


def _listed(items: Sequence[T], render: Callable[[T], str]) -> str:
    texts = [render(item) for item in items[:LIST_LIMIT]]
    rest = len(items) - len(texts)
    return ", ".join([*texts, f"and {rest:,} more"] if rest else texts)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))
