"""What every method promises, checked on all that `compressor.methods` finds.

A loss term that is logged but not learned from is the classic bug of this field: the official HiDFD code computes
feature integration inside `no_grad`, and never calls the update of its class weights. So every method's own loop runs
here, and each term that it logs is differentiated alone, before its backward pass, with respect to every network.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import tiny_networks
import torch
from torch import Tensor, nn

from compressor import methods as package
from compressor.distill import losses
from compressor.distill.generator import Discriminator
from compressor.distill.training import Context, Stateful
from compressor.errors import InputRefused
from compressor.inputs.network_file import NetworkKind
from compressor.method_sheet import check_method, method_sheets
from compressor.methods import (
    TEACHER_PARTS,
    Need,
    Task,
    check_fit,
    dfad,
    in_words,
    load_method,
    method_names,
    methods_for,
)

TERMS = [(name, term) for name in method_names() for term in load_method(name).LOSS_TERMS]

# Few and pool images that a method declares to be enough.
ENOUGH: Mapping[Need, list[tuple[int, int]]] = {
    "few": [(16, 24), (5, 0)],
    "pool": [(16, 24), (5, 0), (0, 24)],
    "nothing": [(16, 24), (5, 0), (0, 24), (0, 0)],
}
SITUATIONS = [(name, *counts) for name in method_names() for counts in ENOUGH[load_method(name).NEEDS]]

methods = pytest.mark.parametrize("name", method_names())


class GradientRecorder(Context):
    """The norm of each term's own gradient: by term, then by network, one number a step (0: none at all).

    Attributes:
        touched: logged steps of another network in which the student's running statistics had moved.
    """

    def __init__(self, folder: Path, trained: Mapping[str, str]) -> None:
        super().__init__(folder, seed=0)
        self.norms: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.touched: list[str] = []
        self._network_of = trained
        self._networks: dict[str, nn.Module] = {}
        self._statistics: dict[str, Tensor] = {}

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        self._networks |= {name: item for name, item in state.items() if isinstance(item, nn.Module)}
        yield from super().steps(phase, num_steps, state)

    def log(self, terms: Mapping[str, Tensor]) -> None:
        for term, value in terms.items():
            for name, network in self._networks.items():
                self.norms[term][name].append(gradient_norm(value, network))
        self._watch_statistics(terms)
        super().log(terms)

    def _watch_statistics(self, terms: Mapping[str, Tensor]) -> None:
        """A student has seen its own batch by the time that it logs; whatever moves later is someone else's doing."""
        if "student" not in self._networks:
            return
        statistics = {name: value.clone() for name, value in self._networks["student"].named_buffers()}
        others = {self._network_of[term] for term in terms if term in self._network_of} - {"student"}
        if others and self._statistics and not tiny.equal(statistics, self._statistics):
            self.touched += sorted(others)
        self._statistics = statistics


def gradient_norm(value: Tensor, network: nn.Module) -> float:
    """Norm of the gradient of `value` with respect to what is trainable in `network` at this moment."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters or not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(gradient.square().sum().item() for gradient in gradients if gradient is not None))


def record(name: str, folder: Path, **changes: Any) -> GradientRecorder:
    """A short run of a method with all of its terms."""
    method = load_method(name)
    context = GradientRecorder(folder, method.LOSS_TERMS)
    settings = tiny.settings(method.Config, **changes)
    method.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, context)
    return context


def check_term(norms: Mapping[str, Mapping[str, list[float]]], name: str, term: str) -> None:
    assert term in norms, f"{term} of {name} was never logged"
    trained = load_method(name).LOSS_TERMS[term]
    for network, values in norms[term].items():
        if network == trained:
            assert all(0.0 < value < float("inf") for value in values), f"{term} of {name} trains {network}: {values}"
        else:
            assert not any(values), f"{term} of {name} touches {network}: {values}"
    assert norms[term][trained]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, GradientRecorder]:
    return {name: record(name, tmp_path_factory.mktemp(name)) for name in method_names()}


@pytest.mark.parametrize(("name", "term"), TERMS)
def test_each_loss_term_trains_what_it_claims_and_nothing_else(
    recorded: Mapping[str, GradientRecorder], name: str, term: str
) -> None:
    check_term(recorded[name].norms, name, term)


@methods
def test_every_term_that_is_logged_is_declared(recorded: Mapping[str, GradientRecorder], name: str) -> None:
    assert recorded[name].norms.keys() == load_method(name).LOSS_TERMS.keys()


@pytest.mark.parametrize("term", ["feature_integration_matched", "category_frequency_smoothing"])
def test_a_term_inside_no_grad_would_be_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, term: str) -> None:
    monkeypatch.setattr(losses, term, torch.no_grad()(getattr(losses, term)))
    norms = record("hidfd", tmp_path).norms
    with pytest.raises(AssertionError, match=f"{term} of hidfd trains"):
        check_term(norms, "hidfd", term)


def test_a_term_that_reaches_another_network_would_be_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A generator half that forgets to freeze the discriminator.
    monkeypatch.setattr(Discriminator, "requires_grad_", lambda self, _requires_grad: self)
    norms = record("hidfd", tmp_path).norms
    with pytest.raises(AssertionError, match="generator_hinge of hidfd touches discriminator"):
        check_term(norms, "hidfd", "generator_hinge")


@methods
def test_the_students_statistics_move_in_its_own_steps_alone(
    recorded: Mapping[str, GradientRecorder], name: str
) -> None:
    assert recorded[name].touched == []


def test_statistics_that_a_generator_moves_would_be_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dfad, "held_constant", lambda _student: nullcontext())
    assert record("dfad", tmp_path).touched == ["generator", "generator"]


# --- the teacher ----------------------------------------------------------------------------------------------------


@methods
def test_the_teacher_is_as_it_was(tmp_path: Path, name: str) -> None:
    method, teacher = load_method(name), tiny.teacher()
    before = tiny.snapshot(teacher)
    method.distill(teacher, tiny.backbone(), tiny.training_images(), tiny.settings(method.Config), Context(tmp_path))
    assert tiny.equal(tiny.snapshot(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    teacher.train()
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize(("name", "num_few", "num_pool"), SITUATIONS)
def test_the_queries_are_as_many_as_it_says(tmp_path: Path, name: str, num_few: int, num_pool: int) -> None:
    method, teacher = load_method(name), tiny.teacher()
    check_fit(name, teacher, num_few, num_pool)
    settings, before = tiny.settings(method.Config), teacher.num_queries
    images = tiny.training_images(num_few, num_pool=num_pool)
    method.distill(teacher, tiny.backbone(), images, settings, Context(tmp_path))
    assert teacher.num_queries - before == method.num_queries(settings, num_few, num_pool)


# --- the student ----------------------------------------------------------------------------------------------------


@methods
def test_the_student_is_trained_and_ready(tmp_path: Path, name: str) -> None:
    method, backbone = load_method(name), tiny.backbone()
    before = tiny.snapshot(backbone)
    settings = tiny.settings(method.Config)
    distilled = method.distill(tiny.teacher(), backbone, tiny.training_images(), settings, Context(tmp_path))
    assert not any(module.training for module in distilled.student.modules())
    after = distilled.student.backbone.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert changed == before.keys()
    logits = distilled.student(torch.rand(2, *tiny.IMAGE_SHAPE))
    assert logits.shape == (2, tiny.NUM_CLASSES)
    assert logits.isfinite().all()


@methods
def test_half_precision_trains_as_well(tmp_path: Path, name: str) -> None:
    method = load_method(name)
    context = Context(tmp_path, precision="bf16")
    settings = tiny.settings(method.Config)
    student = method.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, context).student
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in student.state_dict().values())


@methods
def test_grey_images_that_are_not_square_train_as_well(tmp_path: Path, name: str) -> None:
    method = load_method(name)
    teacher = tiny.teacher(image_shape=(1, 8, 12))
    settings = tiny.settings(method.Config)
    images = tiny.training_images(5, (1, 8, 12))
    student = method.distill(teacher, tiny.backbone(in_channels=1), images, settings, Context(tmp_path)).student
    assert student(torch.rand(3, 1, 8, 12)).shape == (3, tiny.NUM_CLASSES)


# --- what a module declares -----------------------------------------------------------------------------------------


def test_the_methods_are_found() -> None:
    assert {"dafl", "ddad", "dfad", "dfq", "hidfd", "noise", "vanilla"} <= set(method_names())


@methods
def test_the_docstring_cites_its_paper_and_gives_a_formula(name: str) -> None:
    text = load_method(name).__doc__ or ""
    assert "arXiv" in text
    assert "    L" in text, "no indented formula"
    assert text.splitlines()[0].endswith("."), "the first line is what `compress methods` prints"


@methods
def test_settings_are_frozen_strict_and_explained(name: str) -> None:
    config = load_method(name).Config
    assert config.model_config["frozen"] is True
    assert config.model_config["extra"] == "forbid"
    assert [field for field, info in config.model_fields.items() if not info.description] == []


@methods
def test_what_it_uses_and_trains_is_declared(name: str) -> None:
    method = load_method(name)
    assert method.USES
    assert set(method.USES) <= set(TEACHER_PARTS)
    assert method.LOSS_TERMS
    assert method.TASKS
    assert set(method.TASKS) <= set(get_args(Task))
    assert method.NEEDS in get_args(Need)


@methods
@pytest.mark.parametrize(
    ("effort", "side", "device"),
    list(itertools.product(("quick", "standard", "full"), (4, 8, 16, 28, 32, 64, 224), ("cpu", "cuda"))),
)
def test_defaults_fit_every_situation(name: str, effort: str, side: int, device: str) -> None:
    method = load_method(name)
    defaults = method.defaults(effort, (3, side, side), device)
    assert method.Config(**defaults).model_dump().items() >= defaults.items()


@methods
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_effort_is_more_steps(name: str, device: str) -> None:
    method = load_method(name)
    steps = [method.defaults(effort, (3, 32, 32), device)["student_steps"] for effort in ("quick", "standard", "full")]
    assert steps == sorted(set(steps))


# --- other tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in method_names() if "segmentation" in load_method(name).TASKS])
def test_a_segmentation_is_distilled_into_logits_of_every_pixel(name: str, tmp_path: Path) -> None:
    method, teacher = load_method(name), tiny.dense_teacher()
    before, asked = tiny.snapshot(teacher), teacher.num_queries
    settings = tiny.settings(method.Config)
    images = tiny.training_images()
    student = method.distill(teacher, tiny.dense_backbone(), images, settings, Context(tmp_path)).student
    assert student(torch.rand(2, *tiny.IMAGE_SHAPE)).shape == (2, tiny.NUM_CLASSES, *tiny.IMAGE_SHAPE[1:])
    assert tiny.equal(before, tiny.snapshot(teacher))
    assert teacher.num_queries - asked == method.num_queries(settings, len(images.few), len(images.pool))


# --- what does not fit is refused before anything trains --------------------------------------------------------------


def refusal(name: str, *, task: Task = "classification", architecture: str = tiny.ARCHITECTURE, **images: int) -> str:
    teacher = tiny.teacher(architecture, task=task)
    with pytest.raises(InputRefused) as refused:
        check_fit(name, teacher, images.get("num_few", 16), images.get("num_pool", 24))
    return str(refused.value)


def test_a_method_for_another_task_is_refused() -> None:
    text = refusal("hidfd", task="regression")
    assert "The teacher's task is regression." in text
    assert "The method hidfd does classification." in text
    assert "dfad" in text.split("Use a method for regression: ")[1]


@pytest.mark.parametrize("name", ["ddad", "dfq"])
def test_a_teacher_without_batch_norm_is_refused_where_its_statistics_are_the_point(name: str) -> None:
    text = refusal(name, architecture="lenet5")
    assert "The teacher (lenet5) has no batch norm." in text
    assert "Use --method dfad" in text


BEYOND_LOGITS = ("batch_norm_distance", "activation")  # terms that a method has switched off, and refuses itself
KINDS: tuple[NetworkKind, ...] = ("onnx", "torchscript")  # logits alone, and gradients to the image besides


@pytest.mark.parametrize("kind", KINDS)
@methods
def test_a_method_takes_no_more_of_a_teacher_than_it_declares(name: str, kind: NetworkKind, tmp_path: Path) -> None:
    method = load_method(name)
    teacher = tiny_networks.teacher(tiny_networks.write(tmp_path / "t", kind), kind)
    images = tiny.training_images()
    if name not in methods_for(teacher.gives, "classification"):
        with pytest.raises(InputRefused) as refused:
            check_fit(name, teacher, len(images.few), len(images.pool))
        assert refused.value.received == f"Of the teacher ({kind}) only its {in_words(teacher.gives)} are to be had."
        for other in methods_for(teacher.gives, "classification"):
            assert other in refused.value.action
        return
    check_fit(name, teacher, len(images.few), len(images.pool))
    settings = tiny.settings(method.Config)
    if off := {f"{term}_weight": 0.0 for term in method.LOSS_TERMS if term in BEYOND_LOGITS}:
        with pytest.raises(InputRefused):
            method.distill(teacher, tiny.backbone(), images, settings, Context(tmp_path))
        for term in off:  # each by itself
            others = {**off, term: 0.5}
            with pytest.raises(InputRefused, match=term):
                method.distill(
                    teacher, tiny.backbone(), images, tiny.settings(method.Config, **others), Context(tmp_path)
                )
    settings = tiny.settings(method.Config, **off)
    student = method.distill(teacher, tiny.backbone(), images, settings, Context(tmp_path)).student
    assert student(torch.rand(2, *tiny.IMAGE_SHAPE)).shape == (2, tiny.NUM_CLASSES)
    assert teacher.num_queries == method.num_queries(settings, len(images.few), len(images.pool))


def test_what_works_with_logits_alone_is_what_the_documentation_says() -> None:
    assert methods_for({"logits"}, "classification") == ("noise", "pool", "vanilla")
    assert methods_for({"logits", "input_gradient"}, "classification") == ("dfad", "noise", "pool", "vanilla")
    assert methods_for({"logits"}, "segmentation") == methods_for({"logits"}, "regression") == ("noise", "vanilla")


def test_no_image_is_refused_where_one_is_needed() -> None:
    text = refusal("vanilla", num_few=0, num_pool=0)
    assert text.startswith("There is no image of the task to train on.")
    assert "The method vanilla needs images of the task." in text
    assert "dfad" in text.split("a method that needs none: ")[1]
    assert "among the 24 of the pool" in refusal("vanilla", num_few=0)


# --- adding a method is adding a file ---------------------------------------------------------------------------------

TOY = '''"""Teaches nothing, quickly.

    L = mean output^2        trains the student (arXiv 0000.00000)
"""

import torch
from pydantic import BaseModel, ConfigDict, Field

from compressor.methods import Distilled
from compressor.students.student import own_classifier

VERSION, USES, TASKS, NEEDS = 1, ("logits",), ("classification",), "nothing"
LOSS_TERMS = {"nothing": "student"}


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    student_steps: int = Field(default=3, ge=1, description="updates of the student")


def defaults(effort, image_shape, device):
    return {"student_steps": ("quick", "standard", "full").index(effort) + 1}


def num_queries(config, num_few, num_pool):
    return 0


def distill(teacher, backbone, images, config, context):
    student = own_classifier(backbone, teacher).train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in context.steps("student", config.student_steps, {"student": student, "optimiser": optimiser}):
        loss = student(torch.rand(2, *teacher.card.input_shape)).square().mean()
        context.log({"nothing": loss})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Distilled(student.eval())
'''


def test_a_new_method_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    try:
        assert "toy" in method_names()
        check_method("toy", {"student_steps": 2})
        check_fit("toy", tiny.teacher(), 0, 0)
        assert next(sheet.summary for sheet in method_sheets() if sheet.name == "toy") == "Teaches nothing, quickly."
        norms = record("toy", tmp_path / "run").norms
        check_term(norms, "toy", "nothing")
    finally:
        sys.modules.pop("compressor.methods.toy", None)
