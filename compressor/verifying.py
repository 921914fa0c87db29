"""`compress verify RUN`: is what lies in a run folder still what its report says?

Every file is hashed again, every rendering is made again, and the exported files are compared with the torch modules
again. It needs neither the teacher's checkpoint nor the user's images, and it writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from compressor.deploy.variants import Variant
from compressor.gates.releases import differing
from compressor.inputs.card import TeacherCard
from compressor.inputs.network_file import RUN_CODE
from compressor.inputs.own_code import ARCHIVE, is_own_name
from compressor.inputs.own_teacher import know_packed_network
from compressor.inputs.teacher import Classifier, Teacher, load_teacher
from compressor.provenance.manifest import MANIFEST, read_manifest, run_manifest
from compressor.report.leaks import checked_image_sets
from compressor.report.rendering import rendered
from compressor.report.schema import Report
from compressor.report.text import count, percent
from compressor.report.user_files import existing_report
from compressor.running import rebuilt_report
from compressor.stage_files import load_tensors, map_tensors, read_facts
from compressor.stages import edited_outputs, recorded_fingerprint
from compressor.students.student import load_student
from compressor.tasks import ask_file, ask_teacher, task_of
from exporters.parity import Outputs, compare
from exporters.runners import INPUT_NAME, OUTPUT_NAME, OnnxRunner, TorchRunner
from profiles.errors import ToolError

SPLIT, JUDGED = "samples/split.json", "report/judged.json"
STAGES = ("teacher", "samples", "student", "distill", "onnx", "precision", "engine", "kit", "latency", "report")
NUM_RANDOM = 16
MOST_SHOWN = 8
MAY_DIFFER = 1.0  # images on which another machine's rounding may decide a tie


@dataclass(frozen=True)
class Check:
    """One thing that was looked at again.

    Attributes:
        found: what it was, in words.
    """

    name: str
    state: Literal["ok", "failed", "skipped"]
    found: str


def verify_run(path: Path, *, run_code: bool = False) -> tuple[Check, ...]:
    """All checks of a run folder, in their order.

    Args:
        run_code: the code of a teacher of the user's own network, which lies in the run folder, may run.

    Raises:
        UsageFault: there is no report.
    """
    report, folder = existing_report(path)
    checks: dict[str, Callable[[], Found]] = {
        "report": lambda: _report(report, folder),
        "stages": lambda: _stages(report, folder),
        "artefacts": lambda: _artefacts(report, folder),
        "manifest": lambda: _manifest(report, folder),
        "renderings": lambda: _renderings(report, folder),
        "held-out images": lambda: _held_out(report, folder),
        "parity": lambda: _with_code(folder, run_code) or _parity(folder),
        "agreement": lambda: _with_code(folder, run_code) or _agreement(report, folder),
    }
    return tuple(_checked(name, check) for name, check in checks.items())


def _checked(name: str, check: Callable[[], Found]) -> Check:
    """A check that cannot be made has failed: what it reads is part of the run."""
    try:
        found = check()
    except ToolError as error:
        return Check(name, "failed", error.received)
    except Exception as error:  # a file that was edited can break whatever reads it in any way
        return Check(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Check(name, "failed" if found.problems else found.otherwise, "; ".join(found.problems) or found.said)


@dataclass(frozen=True)
class Found:
    """What a check saw: its problems, or what it says where there is none."""

    problems: tuple[str, ...]
    said: str
    otherwise: Literal["ok", "skipped"] = "ok"


def _report(report: Report, folder: Path) -> Found:
    """Every claim is what the stages found, and every gate is judged as it was asked."""
    if (names := tuple(stage.name for stage in report.stages)) != STAGES:
        return Found((f"the report is of the stages {', '.join(names) or 'none'}, and not of {', '.join(STAGES)}",), "")
    made = rebuilt_report(folder, report)
    changed = differing(report.model_dump(mode="json"), made.model_dump(mode="json"))
    if not changed:
        return Found((), "what the stages found, judged by its gates")
    shown = ", ".join(changed[:MOST_SHOWN]) + (f" and {len(changed) - MOST_SHOWN:,} more" * (len(changed) > MOST_SHOWN))
    return Found((f"not what the stages found: {shown}",), "")


# --- files ------------------------------------------------------------------------------------------------------------


def _stages(report: Report, folder: Path) -> Found:
    """Each stage's outputs are what it recorded, and its fingerprint is the report's."""
    problems = []
    for stage in report.stages:
        if edited := edited_outputs(folder / stage.name):
            problems.append(f"{stage.name}: {edited}")
        elif recorded_fingerprint(folder / stage.name) != stage.fingerprint:
            problems.append(f"{stage.name} ran again since the report")
    return Found(tuple(problems), f"{count(len(report.stages), 'stage')} as recorded")


def _artefacts(report: Report, folder: Path) -> Found:
    """Every file that someone may take away has the hash that the report gives."""
    known = {artefact.path: artefact.sha256 for artefact in report.artefacts}
    known |= {one.path: one.sha256 for one in report.variants if one.path is not None and one.sha256 is not None}
    problems = tuple(problem for path, sha256 in known.items() if (problem := _differs(folder / path, path, sha256)))
    return Found(problems, f"{count(len(known), 'file')} with the SHA-256 of the report")


def _manifest(report: Report, folder: Path) -> Found:
    """Every file of the run is there as the manifest lists it, and the rest of it is what the report and stages say."""
    written, made = read_manifest(folder / MANIFEST), run_manifest(report, folder)
    was, now = ({file.path: file.sha256 for file in one.files} for one in (written, made))
    problems = [
        f"{path} {'is missing' if path not in now else 'is not listed' if path not in was else 'was changed'}"
        for path in sorted({**was, **now})
        if was.get(path) != now.get(path)
    ]
    rest = differing(*(one.model_dump(mode="json", exclude={"files"}) for one in (written, made)))
    problems += [f"not what the run says: {', '.join(rest[:MOST_SHOWN])}"] if rest else []
    return Found(tuple(problems), f"{count(len(now), 'file')} as listed")


def _differs(file: Path, name: str, sha256: str) -> str:
    if not file.is_file():
        return f"{name} is missing"
    with file.open("rb") as content:
        return "" if hashlib.file_digest(content, "sha256").hexdigest() == sha256 else f"{name} was changed"


def _renderings(report: Report, folder: Path) -> Found:
    """What people and pipelines read is what report.json gives, to the letter."""
    files = rendered(report, folder)
    listed = {file.path: file.sha256 for file in read_manifest(folder / MANIFEST).files}
    problems, otherwise = [], []
    for name, text in files.items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif (folder / name).read_text(encoding="utf-8") == text:
            continue
        elif _differs(folder / name, name, listed.get(name, "")):
            problems.append(f"{name} is not what report.json gives")
        else:  # the version that wrote it had other words
            otherwise.append(name)
    said = f"{', '.join(name for name in files if name not in otherwise)} are what report.json gives"
    earlier = f"; as written, in an earlier form: {', '.join(otherwise)}" if otherwise else ""
    return Found(tuple(problems), said + earlier)


def _held_out(report: Report, folder: Path) -> Found:
    """No judged image was trained or chosen on, and the sets are those of the report."""
    split, judged = (json.loads((folder / path).read_text("utf-8")) for path in (SPLIT, JUDGED))
    sets = checked_image_sets(split, judged)
    if sets != report.image_sets:
        return Found(("the recorded images are not those of the report",), "")
    return Found((), ", ".join(f"{images.name} {images.num_images:,}" for images in sets) + ": none in two of them")


# --- what the files compute -------------------------------------------------------------------------------------------


def _with_code(folder: Path, run_code: bool) -> Found | None:
    """Why the teacher cannot be asked; None where it can. A run folder may come from anybody, and its code with it."""
    card = _card(folder)
    if not is_own_name(card.architecture):
        return None
    if not run_code:
        said = f"the teacher is made by code in the run folder, {card.architecture}, which --run-code lets run"
        return Found((), said, "skipped")
    know_packed_network(card, folder / "teacher" / ARCHIVE)
    return None


def _parity(folder: Path) -> Found:
    """The fp32 ONNX files compute what the torch modules compute, on random images."""
    card = _card(folder)
    student = load_student(folder / "distill/student.safetensors", folder / "distill/student.json")
    images = torch.rand(NUM_RANDOM, *card.input_shape, generator=torch.Generator().manual_seed(0)).numpy()
    outputs: Outputs = "values" if card.task == "regression" else "classes"
    problems, largest = [], 0.0
    modules: dict[str, nn.Module] = {"student": student}
    unasked = "; teacher.onnx was not compared, since the teacher's own file would run code"
    if card.architecture not in RUN_CODE:
        modules["teacher"], unasked = Classifier(_teacher(folder)), ""
    for name, module in modules.items():
        with TorchRunner(module) as reference, OnnxRunner(folder / "onnx" / f"{name}.onnx") as candidate:
            parity = compare(
                *(runner.infer({INPUT_NAME: images})[OUTPUT_NAME] for runner in (reference, candidate)), outputs=outputs
            )
        largest = max(largest, parity.max_rel)
        if not parity.passes():
            problems.append(f"{name}.onnx differs from torch by {parity.max_rel:.1e} of the largest output")
    which = " and ".join(f"{name}.onnx" for name in modules)
    said = f"{which} within {largest:.1e} of torch on {count(NUM_RANDOM, 'random image')}{unasked}"
    return Found(tuple(problems), said)


def _agreement(report: Report, folder: Path) -> Found:
    """Every file that this machine can run agrees with the teacher on the held-out images as the report says."""
    samples = map_tensors(folder / "samples/images.safetensors")
    rows = samples["evidence"]
    if not len(rows):
        return Found((), "the run held no image out", "skipped")
    images = samples["images"][rows]
    task = task_of(report.task)
    if _card(folder).architecture in RUN_CODE:
        return Found((), "the teacher's own file would run code", "skipped")
    teacher = _teacher(folder)
    reference = ask_teacher(task, teacher, images, "cpu").answers
    reported = {variant.label: variant.agreement.evidence for variant in report.variants}
    problems, number = [], 0
    for row in read_facts(folder / "precision")["variants"]:
        variant = Variant.from_dict(row)
        label = f"{variant.model} {variant.precision}"
        was = reported.get(label)
        if variant.file is None or not variant.judged or was is None:
            continue
        with variant.open(folder) as runner:
            answers = ask_file(task, runner, images).answers
        facts = task.variant_facts(reference, answers, answers, samples["labels"][rows])["agreement"]
        number += 1
        if facts is None or abs(facts["value"] - was.value) > MAY_DIFFER / len(rows):
            now = "nothing" if facts is None else percent(facts["value"])
            problems.append(f"{label} agrees with the teacher on {now} and not on {percent(was.value)}")
    if not number:
        return Found((), "no file that runs here was judged on held-out images", "skipped")
    said = f"{count(number, 'file')} as reported on {count(len(rows), 'held-out image')}, give or take one"
    return Found(tuple(problems), said)


def _teacher(folder: Path) -> Teacher:
    return load_teacher(load_tensors(folder / "teacher/weights.safetensors"), _card(folder))


def _card(folder: Path) -> TeacherCard:
    return TeacherCard.model_validate_json((folder / "teacher/card.json").read_text(encoding="utf-8"))
