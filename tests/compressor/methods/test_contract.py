"""What every method promises, checked on all that `compressor.methods` finds.

A loss term that is logged but not learned from is the classic bug of this field: the official HiDFD code computes
feature integration inside `no_grad`, and never calls the update of its class weights. So every method's own loop runs
here, and each term that it logs is differentiated alone, before its backward pass, with respect to every network.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill import losses
from compressor.distill.generator import Discriminator
from compressor.distill.training import Context, Stateful
from compressor.methods import TEACHER_PARTS, load_method, method_names

TERMS = [(name, term) for name in method_names() for term in load_method(name).LOSS_TERMS]

methods = pytest.mark.parametrize("name", method_names())


class GradientRecorder(Context):
    """The norm of each term's own gradient: by term, then by network, one number a step (0: none at all)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, seed=0)
        self.norms: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._networks: dict[str, nn.Module] = {}

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        self._networks |= {name: item for name, item in state.items() if isinstance(item, nn.Module)}
        yield from super().steps(phase, num_steps, state)

    def log(self, terms: Mapping[str, Tensor]) -> None:
        for term, value in terms.items():
            for name, network in self._networks.items():
                self.norms[term][name].append(gradient_norm(value, network))
        super().log(terms)


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
    context = GradientRecorder(folder)
    method.distill(tiny.teacher(), tiny.backbone(), tiny.images(), tiny.settings(method.Config, **changes), context)
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


# --- the teacher ----------------------------------------------------------------------------------------------------


@methods
def test_the_teacher_is_as_it_was(tmp_path: Path, name: str) -> None:
    method, teacher = load_method(name), tiny.teacher()
    before = tiny.snapshot(teacher)
    method.distill(teacher, tiny.backbone(), tiny.images(), tiny.settings(method.Config), Context(tmp_path))
    assert tiny.equal(tiny.snapshot(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    teacher.train()
    assert not any(module.training for module in teacher.modules())


# --- the student ----------------------------------------------------------------------------------------------------


@methods
def test_the_student_is_trained_and_ready(tmp_path: Path, name: str) -> None:
    method, backbone = load_method(name), tiny.backbone()
    before = tiny.snapshot(backbone)
    settings = tiny.settings(method.Config)
    distilled = method.distill(tiny.teacher(), backbone, tiny.images(), settings, Context(tmp_path))
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
    student = method.distill(tiny.teacher(), tiny.backbone(), tiny.images(), settings, context).student
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in student.state_dict().values())


@methods
def test_grey_images_that_are_not_square_train_as_well(tmp_path: Path, name: str) -> None:
    method = load_method(name)
    teacher = tiny.teacher(image_shape=(1, 8, 12))
    settings = tiny.settings(method.Config)
    student = method.distill(
        teacher, tiny.backbone(in_channels=1), tiny.images(5, (1, 8, 12)), settings, Context(tmp_path)
    ).student
    assert student(torch.rand(3, 1, 8, 12)).shape == (3, tiny.NUM_CLASSES)


# --- what a module declares -----------------------------------------------------------------------------------------


def test_the_methods_are_found() -> None:
    assert {"hidfd", "vanilla"} <= set(method_names())


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
