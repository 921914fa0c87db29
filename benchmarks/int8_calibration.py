"""What int8 loses when the training data is gone: a student, five kinds of calibration images, both forms of int8.

    python -m benchmarks.int8_calibration measure --data PACKS --run runs/clothing --pack clothing
    python -m benchmarks.int8_calibration page [--check]

`measure` takes the run folder of a method with a generator, quantises its student with the exporters of `compress run`
and judges the files on the pack's test images, which nothing was trained, calibrated or chosen on. One row is one
(pack, form, calibration images, method, seed). The methods min-max, entropy and percentile put every layer in int8 that
int8 gains from; `chosen` is what `compress run` makes of the same images: the best of the three, with layers back in
float until 1 point holds on the images that it may choose on. The seed draws training images, noise and generated
images. Rows are appended as they finish and finished rows are skipped. `page` rewrites the tables of
docs/int8-calibration.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.packs import Pack, add_data_argument, cifar10, clothing
from benchmarks.rows import append_row, provenance
from compressor.demo import DIGITS, NUM_TRAIN, digits
from compressor.deploy.calibration_images import JUDGED_SYNTHETIC, gather
from compressor.distill.generator import Generator, load_generator
from compressor.report.intervals import wilson_interval
from compressor.stage_files import load_tensors
from exporters.calibration import ActivationRanges, collect_ranges, merge, range_agreement
from exporters.int8_placement import place
from exporters.int8_search import drop_points, search_int8
from exporters.logits import onnx_logits
from exporters.onnx_files import load_onnx
from exporters.onnx_to_int8 import int8_from_onnx, needs_reduced_range
from exporters.routes import Int8Form

Images = NDArray[np.float32]
Row = Mapping[str, Any]

RESULTS = Path("benchmarks/results/int8_calibration.json")
PAGE = Path("docs/int8-calibration.md")
BEGIN, END = "<!-- tables, made by benchmarks/int8_calibration.py -->", "<!-- end of the tables -->"
FORMS: Mapping[Int8Form, str] = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}
PRODUCT = "few real + generated"  # what `compress run` calibrates on
METHODS = ("min-max", "entropy", "percentile", "chosen")
NUM_CALIBRATION = 512  # generated, training or noise images
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MAX_DROP = 1.0  # points, the product's default


def digits_pack(_data: Path, part: str) -> Pack:
    """The digits of `compress demo` with its default seed: the teacher's 1,200 training images, and the other 597."""
    images, labels = digits(0)
    rows = slice(NUM_TRAIN) if part == "train" else slice(NUM_TRAIN, None)
    return Pack(images[rows], labels[rows], DIGITS)


PACKS: Mapping[str, Callable[[Path, str], Pack]] = {"digits": digits_pack, "cifar10": cifar10, "clothing": clothing}
TITLES = {"digits": "digits, 8 px", "cifar10": "CIFAR-10, 32 px", "clothing": "clothing, 128 px"}


@dataclass(frozen=True)
class CalibrationSet:
    """Images that somebody has: to calibrate on by their kind, and others to choose on. All (N, C, H, W) in [0, 1]."""

    name: str
    calibrate: Mapping[str, Images]
    judge: Images
    random: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="append the rows of one run")
    add_data_argument(measuring)
    measuring.add_argument("--run", type=Path, required=True, help="a run folder with a generator")
    measuring.add_argument("--pack", choices=list(PACKS), required=True, help="what its teacher was trained on")
    measuring.add_argument("--seeds", type=int, default=3)
    measuring.add_argument("--out", type=Path, default=RESULTS)
    paging = commands.add_parser("page", help="rewrite the tables of the page")
    paging.add_argument("--check", action="store_true", help="fail if the page differs, write nothing")
    options = parser.parse_args()
    if options.command == "measure":
        measure(options)
    else:
        write_page(check=options.check)


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """All rows of one run that are not in the file yet."""
    student, teacher = (options.run / "onnx" / f"{name}.onnx" for name in ("student", "teacher"))
    train, test = (PACKS[options.pack](options.data, part) for part in ("train", "test"))
    images, labels = test.images.numpy(), test.labels.numpy()
    fp32_logits, teacher_logits = onnx_logits(student, images), onnx_logits(teacher, images)
    done = {identity(row) for row in read_rows(options.out)}
    for seed in range(options.seeds):
        sets = calibration_sets(options.run, train.images, student, seed)
        images_of = {kind: some for found in sets for kind, some in found.calibrate.items()}
        collected = {kind: collect_ranges(student, some) for kind, some in images_of.items()}
        for found in sets:
            if seed and not found.random:
                continue
            ranges = reduce(merge, (collected[kind] for kind in found.calibrate))
            overlap = range_agreement(collected["training"], ranges)
            for form in FORMS:
                for method in METHODS:
                    row = {"pack": options.pack, "form": form, "images": found.name, "method": method, "seed": seed}
                    if identity(row) in done:
                        continue
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / "student.int8.onnx"
                        facts = write_int8(student, path, form, method, ranges, found.judge)
                        # What ONNX Runtime would fuse in TensorRT's form says nothing of TensorRT.
                        int8_logits = onnx_logits(path, images, optimise=form == "onnxruntime")
                    row |= {
                        "num_images": {kind: len(some) for kind, some in found.calibrate.items()},
                        "range_overlap_median": overlap.median_ratio,
                        "range_overlap_lowest": overlap.lowest_ratio,
                        **facts,
                        **judged(teacher_logits, fp32_logits, int8_logits, labels),
                        **origin(options.run),
                    }
                    append_row(options.out, row)
                    print(json.dumps(row), flush=True)


def calibration_sets(run: Path, train: Tensor, student: Path, seed: int) -> tuple[CalibrationSet, ...]:
    """First what the training data would give, last noise, and between them what a run has."""
    samples = load_tensors(run / "samples" / "images.safetensors")
    real, select = (samples["images"][samples[part]] for part in ("train", "select"))
    alone = gather(real, select, None, num_synthetic=0, seed=seed)
    product = gather(real, select, generator_of(run), num_synthetic=NUM_CALIBRATION, seed=seed)
    chosen_on = product.judges(partial(onnx_logits, student)).images
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    original = as_floats(train[order[: NUM_CALIBRATION + JUDGED_SYNTHETIC]])
    noise = np.random.default_rng(seed).random(original.shape, dtype=np.float32)

    def halves(name: str, kind: str, images: Images) -> CalibrationSet:
        return CalibrationSet(name, {kind: images[:NUM_CALIBRATION]}, images[NUM_CALIBRATION:], random=True)

    generated, few = {"generated": product.synthetic}, {"real": product.real}
    return (
        halves("training images", "training", original),
        CalibrationSet(PRODUCT, few | generated, chosen_on, random=True),
        CalibrationSet("generated", generated, chosen_on[len(select) :], random=True),
        CalibrationSet("few real", few, alone.judges(partial(onnx_logits, student)).images, random=False),
        halves("noise", "noise", noise),
    )


def generator_of(run: Path) -> Generator:
    shape = json.loads((run / "distill" / "generator.json").read_text())
    return load_generator(load_tensors(run / "distill" / "generator.safetensors"), shape)


def write_int8(
    student: Path, path: Path, form: Int8Form, method: str, ranges: ActivationRanges, judge: Images
) -> dict[str, Any]:
    """Write the int8 file of one method to `path`; returns how much of it is int8, and what the search said."""
    reduce_range = form == "onnxruntime" and needs_reduced_range()
    facts: dict[str, Any] = {}
    float_nodes: Sequence[str] = ()
    if method == "chosen":
        choice = search_int8(
            student,
            path,
            form=form,
            calibration_sets=[ranges],
            judge=judge,
            max_drop=MAX_DROP,
            optimise=form == "onnxruntime",
            reduce_range=reduce_range,
        )
        float_nodes = choice.float_nodes
        facts = {
            "chosen_method": choice.method,
            "float_groups": choice.float_groups,
            "num_judged": len(judge),
            "drop_points_judged_whole": min(
                drop_points(trial.agreement) for trial in choice.trials if not trial.float_groups
            ),
            "drop_points_judged": choice.drop_points,
            "limit_held_judged": choice.limit_held,
        }
    else:
        thresholds = {"min-max": ranges.min_max, "entropy": ranges.entropy, "percentile": ranges.percentile}[method]()
        int8_from_onnx(student, path, ranges=thresholds, form=form, reduce_range=reduce_range)
    graph = load_onnx(student).graph
    return {
        "num_layers": sum(node.op_type in WEIGHTED for node in graph.node),
        "num_int8_layers": len(place(graph, form, float_nodes).layers),
        **facts,
    }


def judged(teacher: Images, fp32: Images, int8: Images, labels: NDArray[np.int64]) -> dict[str, Any]:
    """What logits (N, K) of an int8 file say beside those of its fp32 file; counts, so that intervals can follow."""
    wanted, before, after = (found.argmax(axis=1) for found in (teacher, fp32, int8))
    return {
        "num_test": len(labels),
        "same_as_fp32": int((after == before).sum()),
        "logit_error": float(np.linalg.norm(int8 - fp32) / np.linalg.norm(fp32)),
        "teacher_agreement_fp32": float((before == wanted).mean()),
        "teacher_agreement_gained": int(((before != wanted) & (after == wanted)).sum()),
        "teacher_agreement_lost": int(((before == wanted) & (after != wanted)).sum()),
        "accuracy_teacher": float((wanted == labels).mean()),
        "accuracy_fp32": float((before == labels).mean()),
        "accuracy_int8": float((after == labels).mean()),
    }


def as_floats(images: Tensor) -> Images:
    return (images.float() / 255.0).numpy()


def origin(run: Path) -> dict[str, Any]:
    """The student's run, and the machine, versions and revision that made a row; `-dirty` is an uncommitted tree."""
    facts = json.loads((run / "distill" / "facts.json").read_text())
    settings = facts["settings"]
    return {
        "student": json.loads((run / "distill" / "student.json").read_text())["architecture"],
        "steps": {phase: settings[phase] for phase in ("generator_steps", "student_steps")},
        **provenance(),
        "onnxruntime": onnxruntime.__version__,
    }


def identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("pack", "form", "images", "method", "seed"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


# --- the page --------------------------------------------------------------------------------------------------------


def write_page(*, check: bool) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    updated = f"{before}{BEGIN}\n\n{tables(read_rows(RESULTS))}\n\n{END}{after}"
    if check and updated != page:
        sys.exit(f"The tables in {PAGE} are not what {RESULTS} says. Run `python -m benchmarks.int8_calibration page`.")
    if not check:
        PAGE.write_text(updated)


def tables(rows: Sequence[Row]) -> str:
    """Markdown: for each pack what the product makes, then what each method makes with everything in int8."""
    sections = []
    for pack in (pack for pack in TITLES if any(row["pack"] == pack for row in rows)):
        mine = [row for row in rows if row["pack"] == pack]
        sections += [f"## {TITLES[pack]}", facts_of(mine), chosen_table(mine), float_layers(mine), methods_table(mine)]
    return "\n\n".join(filter(None, sections))


def facts_of(rows: Sequence[Row]) -> str:
    """Where one pack's rows come from, in sentences."""
    row = rows[-1]
    steps = row["steps"]
    few = next(found["num_images"]["real"] for found in rows if "real" in found["num_images"])
    dates = sorted({found["date"] for found in rows})
    revisions = sorted({found["revision"] for found in rows})
    return textwrap.fill(
        f"A {row['student']} student after {steps['generator_steps']:,} steps of the generator and "
        f"{steps['student_steps']:,} of its own; {row['num_layers']} weighted layers; {few} few real images. On the "
        f"{row['num_test']:,} test images the teacher's accuracy is {100 * row['accuracy_teacher']:.1f} %, the fp32 "
        f"student's {100 * row['accuracy_fp32']:.1f} %, their agreement {100 * row['teacher_agreement_fp32']:.1f} %. "
        f"{len({found['seed'] for found in rows})} seeds; {row['device']}, onnxruntime {row['onnxruntime']}, revision "
        f"{', '.join(revisions)}, {dates[-1]}.",
        118,
    )


def chosen_table(rows: Sequence[Row]) -> str:
    heads = (
        "calibration images",
        "same ranges, %: median (lowest)",
        "form",
        "agreement with fp32, %",
        "change of agreement with the teacher, points",
        "change of accuracy, points",
        "drop that the search saw with all in int8, points",
        f"int8 layers of {rows[0]['num_layers']}",
    )
    lines: list[Sequence[str]] = [heads, ["---", "---:", "---", *["---:"] * 5]]
    for name, form, found in cells(rows, "chosen"):
        lines.append(
            (
                name,
                f"{100 * mean(found, 'range_overlap_median'):.0f} ({100 * mean(found, 'range_overlap_lowest'):.0f})",
                FORMS[form],
                agreement(found),
                change(found),
                signed(mean(found, "accuracy_int8") - mean(found, "accuracy_fp32")),
                by_seed(f"{row['drop_points_judged_whole']:.1f}" for row in found),
                by_seed(str(row["num_int8_layers"]) for row in found),
            )
        )
    return as_markdown(lines)


def float_layers(rows: Sequence[Row]) -> str:
    """Which layers `compress run` puts back into float, form by form and seed by seed."""
    lines = [
        f"* {FORMS[row['form']]}, seed {row['seed']}: {', '.join(f'`{group}`' for group in row['float_groups'])}"
        for row in rows
        if row["method"] == "chosen" and row["images"] == PRODUCT and row["float_groups"]
    ]
    return "\n".join([f"Back in float with {PRODUCT}:", "", *lines]) if lines else ""


def methods_table(rows: Sequence[Row]) -> str:
    """Every layer in int8 that may be: agreement with fp32, and below it the change of agreement with the teacher."""
    methods = METHODS[:-1]
    lines: list[Sequence[str]] = [("all in int8", "form", *methods), ("---", "---", *["---:"] * len(methods))]
    found = {(name, form): {method: "" for method in methods} for name, form, _ in cells(rows, methods[0])}
    for method in methods:
        for name, form, some in cells(rows, method):
            found[name, form][method] = f"{agreement(some)}<br>{change(some)}"
    return as_markdown([*lines, *((name, FORMS[form], *row.values()) for (name, form), row in found.items())])


def cells(rows: Sequence[Row], method: str) -> list[tuple[str, Int8Form, list[Row]]]:
    """(calibration images, form, rows of all seeds) of one method, in the order in which they were measured."""
    wanted = [row for row in rows if row["method"] == method]
    keys = dict.fromkeys((row["images"], row["form"]) for row in wanted)
    return [
        (name, form, [row for row in wanted if (row["images"], row["form"]) == (name, form)]) for name, form in keys
    ]


def mean(rows: Sequence[Row], key: str) -> float:
    return fmean(row[key] for row in rows)


def agreement(rows: Sequence[Row]) -> str:
    """Mean over the seeds, with the Wilson interval of that mean on the test images, which all seeds share."""
    n = rows[0]["num_test"]
    same = mean(rows, "same_as_fp32")
    low, high = wilson_interval(round(same), n)
    return f"{100 * same / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def change(rows: Sequence[Row]) -> str:
    """Agreement of int8 with the teacher less that of fp32, in points, mean over the seeds.

    The interval is for matched pairs, with half an image added to each of the four counts (Agresti and Min 2005), so
    that it has a width where no answer changed.
    """
    n, gained, lost = rows[0]["num_test"], mean(rows, "teacher_agreement_gained"), mean(rows, "teacher_agreement_lost")
    centre = (gained - lost) / (n + 2)
    half = 1.96 * sqrt((gained + lost + 1) - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return f"{signed((gained - lost) / n)} ({signed(centre - half)} to {signed(centre + half)})"


def signed(share: float) -> str:
    """In points, without a sign of its own for zero that was rounded up from below."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def by_seed(values: Iterable[str]) -> str:
    """One value where all seeds agree, else one for each."""
    found = list(values)
    return ", ".join(dict.fromkeys(found) if len(set(found)) == 1 else found)


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
