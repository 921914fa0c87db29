"""How the student differs from its teacher: agreement, calibration, confidence, robustness, and class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compressor.report.artefact_table import agreement_name
from compressor.report.html.blocks import (
    MOST,
    WORST,
    Block,
    Column,
    Details,
    Figure,
    Heading,
    Paragraph,
    Row,
    Section,
    name,
    table,
    worst_first,
)
from compressor.report.html.charts import Axis, Line, Mark, intervals
from compressor.report.html.deciding import IMAGES
from compressor.report.html.numbers import NOTHING, Name, Numbers, Path, Words
from compressor.report.measured import (
    AnyComparison,
    ClassAccuracy,
    Comparison,
    Proportion,
    RegressionComparison,
    SegmentationComparison,
)
from compressor.report.schema import Report
from compressor.report.text import signed_points
from compressor.report.wording import NO_EVIDENCE

CORRUPTED = ("agreement", "teacher_kept", "student_kept")
SERIES = ("student with teacher", "teacher kept", "student kept")


@dataclass(frozen=True)
class _Images:
    """One set of images that the student was compared on. evidence: whether they say what the student is worth."""

    title: str
    comparison: Path
    agreement: Path
    mean_iou: Path
    evidence: bool = True


SETS = (
    _Images("--eval images", ("comparison_eval",), ("student", "agreement", "eval"), ("student", "mean_iou", "eval")),
    _Images(
        "held-out images",
        ("comparison_evidence",),
        ("student", "agreement", "evidence"),
        ("student", "mean_iou", "evidence"),
    ),
    _Images(
        "generated, no evidence",
        ("generated", "comparison"),
        ("generated", "agreement"),
        ("generated", "mean_iou"),
        evidence=False,
    ),
)


def agreement(numbers: Numbers) -> Section | None:
    """On each set of images, drawn and in numbers. What is no evidence is drawn hollow and says so."""
    lines, rows = [], []
    for images in SETS:
        for said, path in (("", images.agreement), ("mean IoU, ", images.mean_iou)):
            found: Proportion | None = _there(numbers, path)
            if found is None:
                continue
            label = f"{said}{images.title}"
            mark = Mark(found.value, found.low, found.high, doubtful=not images.evidence)
            lines.append(Line(label, (mark,), numbers.number("percent", (*path, "value"))))
            rows.append(
                Row(
                    (
                        (label,),
                        (numbers.number("count", (*path, "n")),),
                        (numbers.number("percent", (*path, "value")),),
                        numbers.span(path),
                        (numbers.number("confidence", (*path, "confidence")),),
                    )
                )
            )
    if not lines:
        return None
    title = f"{agreement_name(numbers.report)} of student and teacher"
    title = title[0].upper() + title[1:]
    columns = (
        Column("on"),
        Column("images", numeric=True),
        Column("agreement", numeric=True),
        Column("interval", numeric=True),
        Column("confidence", numeric=True),
    )
    axis = Axis(agreement_name(numbers.report), _percents, high=1.0)
    blocks: list[Block] = [
        Figure(f"{title}, with intervals", intervals("agreement", title, axis, lines)),
        table("Agreement in numbers", columns, rows),
    ]
    if _there(numbers, ("generated",)) is not None:
        blocks.append(Paragraph((NO_EVIDENCE,), faint=True))
    return Section("agreement", "Agreement with the teacher", "Agreement", tuple(blocks))


def confidence(numbers: Numbers) -> Section | None:
    """Calibration and the shift of confidence, which only classifiers have."""
    found = [images for images in SETS if isinstance(_there(numbers, images.comparison), Comparison)]
    if not found:
        return None
    blocks = (*_calibration(numbers, found), *_confidence(numbers, found))
    return Section("confidence", "Calibration and confidence", "Calibration", blocks)


def _calibration(numbers: Numbers, found: list[_Images]) -> Iterator[Block]:
    rows = [
        Row(
            (
                (f"{whose}, {images.title}",),
                (numbers.number("percent", (*at, "error")),),
                (numbers.number("count", (*at, "n")),),
                (numbers.number("count", (*at, "num_bins")),),
            )
        )
        for images in found
        for whose, field in (
            ("student against the teacher's classes", "calibration"),
            ("student against labels", "calibration_labels"),
            ("teacher against labels", "teacher_calibration_labels"),
        )
        if numbers.at(at := (*images.comparison, field)) is not None
    ]
    if rows:
        columns = (
            Column("whose confidence against what"),
            Column("calibration error", numeric=True),
            Column("images", numeric=True),
            Column("bins", numeric=True),
        )
        yield Paragraph(
            (
                "Expected calibration error: how far a network's confidence is from its hit rate, over bins of equally "
                "many images.",
            ),
            faint=True,
        )
        yield table("Calibration", columns, rows)


def _confidence(numbers: Numbers, found: list[_Images]) -> Iterator[Block]:
    columns = (
        Column("network and images"),
        Column("mean", numeric=True),
        Column("median", numeric=True),
        Column("one in ten below", numeric=True),
        Column("images", numeric=True),
    )
    rows = [
        Row(
            (
                (f"{model}, {images.title}",),
                *((numbers.number("percent", (*at, field)),) for field in ("mean", "median", "p10")),
                (numbers.number("count", (*at, "n")),),
            )
        )
        for images in found
        for model in ("teacher", "student")
        for at in [(*images.comparison, f"{model}_confidence")]
    ]
    yield table("Confidence in the own first class", columns, rows)
    shifts = [
        Row(
            (
                (images.title,),
                numbers.difference((*images.comparison, "confidence_shift")),
                (numbers.number("significant", (*images.comparison, "mean_kl_nats")),),
            )
        )
        for images in found
    ]
    shifted = (
        Column("on"),
        Column("student's confidence minus the teacher's, points", numeric=True),
        Column("KL divergence from the teacher, nats", numeric=True),
    )
    yield table("Shift of confidence", shifted, shifts)


def robustness(numbers: Numbers) -> Section | None:
    """Under mild corruptions: whether each network keeps its own answer, and whether the two still agree."""
    report = numbers.report
    if not report.robustness:
        return None
    lines, rows = [], []
    for index, found in enumerate(report.robustness):
        at: Path = ("robustness", index)
        label = f"{found.corruption}, {name(found.strength).text}"
        marks = tuple(
            Mark(one.value, one.low, one.high, series)
            for series, one in enumerate((found.agreement, found.teacher_kept, found.student_kept))
        )
        lines.append(Line(label, marks))
        rows.append(
            Row(
                (
                    (label,),
                    (IMAGES[found.images],),
                    (numbers.number("count", (*at, "agreement", "n")),),
                    *(numbers.share((*at, field)) for field in CORRUPTED),
                    numbers.share((*at, "teacher_accuracy")),
                    numbers.share((*at, "student_accuracy")),
                )
            )
        )
    columns = (
        Column("corruption"),
        Column("of"),
        Column("images", numeric=True),
        *(Column(title, numeric=True) for title in SERIES),
        Column("teacher's accuracy", numeric=True),
        Column("student's accuracy", numeric=True),
    )
    title = "Robustness to mild corruptions"
    axis = Axis("share of the images", _percents, high=1.0)
    blocks = (
        Paragraph(
            (
                "Kept: a network's answer on the corrupted image is its own answer on the clean one. A student that "
                "keeps less than its teacher is less robust, even where their answers on clean images are equal.",
            ),
            faint=True,
        ),
        Figure(title, intervals("robustness", title, axis, lines, SERIES)),
        table("Robustness in numbers", columns, rows),
    )
    return Section("robustness", title, "Robustness", blocks)


# --- class by class ------------------------------------------------------------------------------------------------


def classes(numbers: Numbers) -> Section | None:
    """Where the student differs: by class, by class of a map, or by output."""
    sets = [(f"On {images.title}", tuple(_compared(numbers, images))) for images in SETS]
    known = [(title, blocks) for title, blocks in sets if blocks]
    # The set that says most is in sight, the others in details.
    known.sort(key=lambda pair: pair[0] != f"On {_largest(numbers).title}")
    blocks: list[Block] = list(_class_accuracy(numbers))
    for index, (title, found) in enumerate(known):
        blocks += found if index == 0 else [Details(title, found)]
    title = "Outputs" if numbers.report.task == "regression" else "Classes"
    return Section("classes", f"{title} that differ", title, tuple(blocks)) if blocks else None


def _largest(numbers: Numbers) -> _Images:
    """Of what is evidence, the set with the most images."""

    def size(images: _Images) -> int:
        found: Proportion | None = _there(numbers, images.agreement)
        return 0 if found is None or not images.evidence else found.n

    return max(SETS, key=size)


def _compared(numbers: Numbers, images: _Images) -> Iterator[Block]:
    found: AnyComparison | None = _there(numbers, images.comparison)
    match found:
        case Comparison():
            yield from _flips(numbers, found, images)
        case SegmentationComparison():
            yield from _maps(numbers, found, images)
        case RegressionComparison():
            yield from _outputs(numbers, found, images)
        case None:
            return


def _flips(numbers: Numbers, found: Comparison, images: _Images) -> Iterator[Block]:
    """Most flips first; a class without any is only counted."""
    order = sorted(range(len(found.flips)), key=lambda i: -found.flips[i].num_flipped)
    moved = [index for index in order if found.flips[index].num_flipped]
    rows = []
    for index in moved:
        at: Path = (*images.comparison, "flips", index)
        flipped, total = (*at, "num_flipped"), (*at, "num_images")
        rows.append(
            Row(
                (
                    (_class(numbers, found.flips[index].class_index),),
                    (numbers.number("count", flipped),),
                    (numbers.number("count", total),),
                )
            )
        )
    yield Heading(f"Flips on {images.title}")
    if not rows:
        yield Paragraph(("No image changes its class.",))
        return
    columns = (Column("the teacher's class"), Column("flipped", numeric=True), Column("images", numeric=True))
    shown = rows if images.evidence else rows[:WORST]
    yield from worst_first(f"Flips by the teacher's class, {images.title}", columns, shown, "the classes with flips")
    if left := len(rows) - len(shown):
        yield Paragraph((f"{left:,} more classes with flips are in report.json.",), faint=True)
    if still := len(found.flips) - len(moved):
        verb = "keeps" if still == 1 else "keep"
        yield Paragraph((f"{still:,} of {len(found.flips):,} classes {verb} every image.",), faint=True)


def _maps(numbers: Numbers, found: SegmentationComparison, images: _Images) -> Iterator[Block]:
    """Least alike first; a class that neither gives to any pixel is not there."""
    rows = []
    for index in sorted(range(len(found.classes)), key=lambda i: found.classes[i].iou):
        at: Path = (*images.comparison, "classes", index)
        rows.append(
            Row(
                (
                    (_class(numbers, found.classes[index].class_index),),
                    *(
                        numbers.one("percent", (*at, field))
                        for field in ("iou", "teacher_share", "teacher_iou", "student_iou")
                    ),
                )
            )
        )
    columns = (
        Column("class"),
        Column("IoU with the teacher", numeric=True),
        Column("of the teacher's pixels", numeric=True),
        Column("teacher's IoU with masks", numeric=True),
        Column("student's IoU with masks", numeric=True),
    )
    yield Heading(f"Classes on {images.title}")
    lowest = numbers.number("percent", (*images.comparison, "lowest_image"))
    images_of = numbers.number("count", (*images.comparison, "num_images"))
    yield Paragraph(("On every one of ", images_of, " images at least ", lowest, " of the pixels agree."))
    yield from worst_first(f"Overlap by class, {images.title}, least alike first", columns, rows, "the classes")


def _outputs(numbers: Numbers, found: RegressionComparison, images: _Images) -> Iterator[Block]:
    """Worst first."""

    def explained(index: int) -> float:
        share = found.outputs[index].explained
        return 1.0 if share is None else share

    rows = []
    for index in sorted(range(len(found.outputs)), key=explained):
        at: Path = (*images.comparison, "outputs", index)
        share = numbers.one("percent", (*at, "explained"))
        rows.append(
            Row(
                (
                    (_class(numbers, found.outputs[index].index),),
                    ("the teacher's is constant",) if share == NOTHING else share,
                    (numbers.number("significant", (*at, "rmse")),),
                    (numbers.number("significant", (*at, "teacher_std")),),
                )
            )
        )
    columns = (
        Column("output"),
        Column("variance explained", numeric=True),
        Column("root mean square difference", numeric=True),
        Column("teacher's deviation", numeric=True),
    )
    yield Heading(f"Outputs on {images.title}")
    rmse = numbers.number("significant", (*images.comparison, "rmse"))
    images_of = numbers.number("count", (*images.comparison, "num_images"))
    yield Paragraph(("Root mean square difference over all outputs: ", rmse, ", on ", images_of, " images."))
    yield from worst_first(f"Differences by output, {images.title}, worst first", columns, rows, "the outputs")


def _class_accuracy(numbers: Numbers) -> Iterator[Block]:
    """The classes that lose most with what ships, and in details all classes with every artefact."""
    report = numbers.report
    known = [index for index, variant in enumerate(report.variants) if variant.class_accuracy]
    if not known:
        return
    judged = _judged(report, known)
    found = report.variants[judged].class_accuracy
    label = report.variants[judged].label
    order = sorted(range(len(found)), key=lambda i: _change(found[i]))
    rows, lines = [], []
    for index in order[:WORST]:
        at: Path = ("variants", judged, "class_accuracy", index)
        one = found[index]
        right, theirs, total = ((*at, field) for field in ("num_right", "num_right_teacher", "num_images"))
        change = numbers.number("right minus teacher's", right, theirs, total)
        low, high = (numbers.number("points", (*at, end)) for end in ("low", "high"))
        rows.append(
            Row(
                (
                    (_class(numbers, one.class_index),),
                    (numbers.number("count", total),),
                    (numbers.number("count", theirs),),
                    (numbers.number("count", right),),
                    (change, " (", low, " to ", high, ")"),
                )
            )
        )
        low_end, high_end = min(one.low, change.value), max(one.high, change.value)
        mark = Mark(change.value, low_end, high_end)
        lines.append(Line(_class(numbers, one.class_index).text, (mark,), change))
    shown = f"the {len(rows)} worst of {len(found):,} classes" if len(found) > len(rows) else "worst class first"
    title = f"Accuracy of {label} by label against the teacher, {shown}"
    axis = Axis("accuracy against the teacher's, points", signed_points, lines=((0.0, "the teacher"),))
    columns = (
        Column("label"),
        Column("images", numeric=True),
        Column("teacher right", numeric=True),
        Column(f"{label} right", numeric=True),
        Column("difference, points", numeric=True),
    )
    yield Heading("Accuracy by label")
    yield Figure(title, intervals("class-accuracy", title, axis, lines[: WORST // 2]))
    yield table(title, columns, rows)
    if len(known) > 1 or len(found) > len(rows):
        yield Details("All labels, with every artefact", (_every_class(numbers, judged, known, order),))


def _every_class(numbers: Numbers, judged: int, known: list[int], order: list[int]) -> Block:
    """Classes down, artefacts across: images that each has right, with the interval of the difference in points."""
    report = numbers.report
    places = {
        index: {one.class_index: place for place, one in enumerate(report.variants[index].class_accuracy)}
        for index in known
    }

    def cell(index: int, class_index: int) -> Words:
        place = places[index].get(class_index)
        if place is None:
            return NOTHING
        at: Path = ("variants", index, "class_accuracy", place)
        right = numbers.number("count", (*at, "num_right"))
        low, high = (numbers.number("points", (*at, end)) for end in ("low", "high"))
        return (right, " (", low, " to ", high, ")")

    rows = []
    for place in order[:MOST]:
        one = report.variants[judged].class_accuracy[place]
        at: Path = ("variants", judged, "class_accuracy", place)
        rows.append(
            Row(
                (
                    (_class(numbers, one.class_index),),
                    (numbers.number("count", (*at, "num_images")),),
                    (numbers.number("count", (*at, "num_right_teacher")),),
                    *(cell(index, one.class_index) for index in known),
                )
            )
        )
    columns = (
        Column("label"),
        Column("images", numeric=True),
        Column("teacher right", numeric=True),
        *(Column(report.variants[index].label, numeric=True) for index in known),
    )
    left = len(order) - len(rows)
    note = f"and {left:,} more in report.json" if left else ""
    caption = "Images that each artefact has right, by label, and the interval of its difference in points"
    return table(caption, columns, rows, note)


def _judged(report: Report, known: list[int]) -> int:
    """What ships, or else the first artefact of the student."""
    chosen = report.recommendation
    students = [index for index in known if report.variants[index].model == "student"]
    shipped = [index for index in known if chosen is not None and chosen.takes(report.variants[index])]
    return [*shipped, *students, *known][0]


def _change(one: ClassAccuracy) -> float:
    return (one.num_right - one.num_right_teacher) / one.num_images


def _class(numbers: Numbers, index: int) -> Name:
    return name(numbers.report.teacher_source.class_names[index])


def _there(numbers: Numbers, path: Path) -> Any:
    """What is at a path, of which the parent may be missing."""
    if path[0] == "generated" and numbers.report.generated is None:
        return None
    return numbers.at(path)


def _percents(fraction: float) -> str:
    """A tick."""
    return f"{100 * fraction:g} %"
