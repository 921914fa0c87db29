"""One run: its settings and target, its files by what they hold, and the refusals before anything is read."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from compressor.config import Resolved, RunConfig
from compressor.deploy.board_results import check_anchors
from compressor.deploy.expected_latency import run_anchors
from compressor.deploy.variants import Variant
from compressor.distill.generator import Generator, load_generator
from compressor.distill.training_images import Placement, TrainingImages, place
from compressor.doctor import training_device
from compressor.errors import UsageFault
from compressor.gates.asked import NOTHING, Asked, asked_gates
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import TeacherSource, read_teacher
from compressor.inputs.masks import check_masks
from compressor.inputs.named import check_file, check_image_folder, read_class_names
from compressor.inputs.own_code import ARCHIVE, OwnCode, is_own_name, own_code
from compressor.inputs.own_teacher import know_packed_network
from compressor.inputs.pixels import StoredImages, whole
from compressor.inputs.refusals import existing_file
from compressor.inputs.teacher import Teacher, load_teacher
from compressor.interruption import StopRequest
from compressor.method_sheet import check_method
from compressor.methods import load_method
from compressor.progress import Reporter
from compressor.report.limits import Limits, limits_of
from compressor.stage_files import load_tensors, map_tensors, read_facts
from compressor.students.search import StudentLimits
from compressor.students.specification import parse_student
from compressor.students.student import Backbone, Student, load_backbone, load_student
from compressor.tasks import TaskEvidence, task_of
from compressor.torchrun import ALONE, Ranks, check_gpus
from profiles.catalogue import load_target
from profiles.predict import Anchor
from profiles.schema import DeviceProfile
from profiles.ssh import board_named

TARGET = "target.json"  # the profile as it was, whatever becomes of the user's own file


@dataclass(frozen=True)
class Run:
    """One run: its settings, its target, the device that it trains on, whoever watches or stops it, and which of the
    processes that train it this is.

    Attributes:
        asked: the gates that its report is judged by.
        started: when the command was given, on the monotonic clock.
    """

    config: RunConfig
    target: DeviceProfile
    device: str
    reporter: Reporter
    stop: StopRequest
    ranks: Ranks = ALONE
    asked: Asked = NOTHING
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Since the command was given."""
        return time.monotonic() - self.started

    def path(self, stage: str, name: str = "") -> Path:
        return self.config.out / stage / name

    def card(self) -> TeacherCard:
        card = TeacherCard.model_validate_json(self.path("teacher", "card.json").read_text(encoding="utf-8"))
        if is_own_name(card.architecture) and card.architecture == self.config.teacher.architecture:
            know_packed_network(card, self.path("teacher", ARCHIVE))
        return card

    def teacher(self) -> Teacher:
        return load_teacher(load_tensors(self.path("teacher", "weights.safetensors")), self.card()).to(self.device)

    def samples(self) -> dict[str, Tensor]:
        """images (N, C, H, W) uint8, labels, pseudo_labels (N,), and the indices train, select, evidence.

        They are views of the file: an index of many images is a copy, `part` is none.
        """
        return map_tensors(self.path("samples", "images.safetensors"))

    def part(self, name: Literal["train", "select", "evidence"]) -> StoredImages:
        """The images of one part of the samples, which stay in the file until a batch is asked for."""
        samples = self.samples()
        return StoredImages((samples["images"], samples[name]))

    def backbone(self) -> Backbone:
        """The student's body before training."""
        weights, card = self.path("student", "backbone.safetensors"), self.path("student", "backbone.json")
        return load_backbone(weights, card, self.card().input_shape[0])

    def training_images(self, *, with_pool: bool) -> tuple[TrainingImages, Placement]:
        """The train part of the samples, and the pool, which is trained on or not; and where they are kept."""
        device, number = torch.device(self.device), self.ranks.local_size
        return place(self.part("train"), self.pool(), device, with_pool=with_pool, num_processes=number)

    def student(self) -> Student:
        self.card()  # of the user's own network a pruned student is made
        return load_student(self.path("distill", "student.safetensors"), self.path("distill", "student.json"))

    def generator(self) -> Generator | None:
        """The method's generator in evaluation mode on the CPU; None where it leaves none."""
        weights = self.path("distill", "generator.safetensors")
        if not weights.exists():
            return None
        shape = json.loads(self.path("distill", "generator.json").read_text(encoding="utf-8"))
        return load_generator(load_tensors(weights), shape)

    def made_images(self) -> Tensor | None:
        """uint8 (M, C, H, W), some that a method without a generator has made; None where it keeps none."""
        path = self.path("distill", "made.safetensors")
        return load_tensors(path)["images"] if path.exists() else None

    def variants(self, *stages: str) -> tuple[Variant, ...]:
        """The files of student and teacher that these stages made, ONNX files and engines by default."""
        stages = stages or ("precision", "engine")
        return tuple(Variant.from_dict(row) for stage in stages for row in read_facts(self.path(stage))["variants"])

    def anchors(self) -> tuple[Anchor, ...]:
        """What an earlier run, named by the user, has measured on this target."""
        earlier = self.config.student.anchors
        return () if earlier is None else run_anchors(earlier, self.target)

    def task(self) -> TaskEvidence:
        """What the teacher's answers are, and how they are compared."""
        return task_of(self.card().task)

    def pool(self) -> StoredImages:
        """Those of the pool, without what is among the samples; none where the user gives no pool."""
        if self.config.samples.pool is None:
            return whole(torch.empty(0, *self.card().input_shape, dtype=torch.uint8))
        return whole(map_tensors(self.path("samples", "pool.safetensors"))["images"])

    def opset_ceiling(self) -> int:
        return self.config.onnx.opset or self.target.opset_ceiling

    def fitting_settings(self, method: str, card: TeacherCard, effort: str | None = None) -> dict[str, Any]:
        """The settings of a method that follow from the effort (the user's, or another), the image and the device."""
        return load_method(method).defaults(effort or self.config.distill.effort, card.input_shape, self.device)

    def method_settings(self, method: str, card: TeacherCard) -> BaseModel:
        """A method's own settings: its defaults, those that fit the situation, then the user's options."""
        options = self.config.distill.options
        return load_method(method).Config(**{**self.fitting_settings(method, card), **options})


def limits_for(config: RunConfig, target: DeviceProfile) -> Limits:
    """What an artefact must hold: the user's limits, and the wishes of the target where the user has none."""
    own = config.limits
    return limits_of(
        own.max_drop,
        own.max_latency_ms,
        own.max_size_mib,
        target.budget,
        max_params_m=own.max_params_m,
        accept_predicted=own.accept_predicted,
    )


def student_limits(config: RunConfig) -> StudentLimits:
    """What the user asks of a student that is chosen."""
    own = config.limits
    return StudentLimits(own.max_latency_ms, own.max_size_mib, own.max_params_m)


def prepare(
    resolved: Resolved,
    reporter: Reporter | None = None,
    stop: StopRequest | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Refuse what can be refused without reading a weight or an image.

    Raises:
        UsageFault, ProfileError, WrongBoardName: a setting fits no method, student, target, gate or board, or only a
            configuration file says that code may run.
        StaleResult, BoardResultError: what --anchors names was measured of other files than that run has now.
        InputRefused: the teacher or a folder of images is not there, or no mask of --eval can be used.
        EnvironmentFault: a GPU was demanded and there is none, or there are more processes than GPUs.
    """
    config = resolved.config
    target = load_target(config.target)
    check_method(config.distill.method, config.distill.options)
    parse_student(config.student.spec)
    if config.student.anchors is not None:
        check_anchors(config.student.anchors, target)
    if config.onnx.opset is not None and config.onnx.opset > target.opset_ceiling:
        raise UsageFault(
            f"--opset {config.onnx.opset} is above what {target.title} reads.",
            f"Its ceiling is opset {target.opset_ceiling}.",
            f"Use --opset {target.opset_ceiling}, or leave the flag out.",
        )
    wanted = config.precision.precisions or target.precisions
    if unknown := [precision for precision in wanted if precision not in target.precisions]:
        raise UsageFault(
            f"--precisions has {', '.join(unknown)}.",
            f"{target.title} takes {', '.join(target.precisions)}.",
            "Name some of these, or leave the flag out.",
        )
    existing_file(config.teacher.file)
    _check_consent(resolved)
    for flag, file in (
        ("--card", config.teacher.card),
        ("--class-names", config.teacher.class_names),
        ("--code", config.teacher.code),
    ):
        if file is not None:
            check_file(flag, file)
    own_code_of(config)
    gates = config.gates
    asked = asked_gates(gates.file, gates.limits, gates.baseline, require_measured=gates.require_measured)
    if config.board is not None:
        board_named(config.board, config.ssh_config)
    folders = {"--samples": config.samples.folder, "--pool": config.samples.pool, "--eval": config.report.eval}
    for flag, folder in folders.items():
        if folder is not None:
            check_image_folder(flag, folder)
    if config.teacher.task == "segmentation" and config.report.eval is not None:
        check_masks(config.report.eval)  # where the task is not stated, the stage `teacher` does when it knows it
    device = training_device(config.device)
    check_gpus(ranks.local_size, device)
    return Run(config, target, device, reporter or Reporter(quiet=True), stop or StopRequest(), ranks, asked)


def _check_consent(resolved: Resolved) -> None:
    """Code runs by the word of whoever types the command; a configuration, also that of a run folder, may be anybody's.

    Raises:
        UsageFault: naming what to add to the command line.
    """
    teacher, from_file = resolved.config.teacher, resolved.from_file
    is_own = is_own_name(teacher.architecture)
    lets_run: dict[str, str] = {}  # what the configuration alone says, as the flags that would say it
    if is_own and "teacher.architecture" in from_file:
        lets_run["teacher.architecture"] = f"--arch {teacher.architecture}"
    if teacher.trust_pickle and "teacher.trust_pickle" in from_file:
        lets_run["teacher.trust_pickle"] = "--trust-pickle"
    # With another flag's word the file of the code would still be the configuration's choice. Where a configuration
    # names the network, its file is looked for beside it, and has to be named once the network is a flag.
    if teacher.code is not None and ("teacher.code" in from_file or "teacher.architecture" in lets_run):
        lets_run["teacher.code"] = f"--code {shlex.quote(str(teacher.code))}"
    if lets_run:
        raise UsageFault(
            f"The configuration file says that code may run: {', '.join(lets_run)}.",
            "Code runs where flags of the command line say so, and not because a configuration, a card or a checkpoint "
            "does.",
            f"Where you trust this code, add {' '.join(lets_run.values())}.",
        )


def own_code_of(config: RunConfig) -> OwnCode | None:
    """The files of the user's own network, which has not run yet; None where --arch names no code.

    Raises:
        UsageFault, InputRefused: they are not there, or no Python.
    """
    name, file = config.teacher.architecture, config.teacher.code
    return own_code(name, file) if name is not None and file is not None and is_own_name(name) else None


def teacher_source(run: Run) -> TeacherSource:
    """The user's checkpoint, checked whole, and what is known of its input before any image was read."""
    config = run.config.teacher
    names = None if config.class_names is None else read_class_names(config.class_names)
    return read_teacher(
        config.file,
        architecture=config.architecture,
        card_file=config.card,
        feature_layer=config.feature_layer,
        classifier_layer=config.classifier_layer,
        weights_key=config.weights,
        trust_pickle=config.trust_pickle,
        code=config.code,
        overrides={
            "task": config.task,
            "mean": config.mean,
            "std": config.std,
            "input_size": config.input_size,
            "class_names": names,
        },
    )
