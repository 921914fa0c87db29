"""DFAD's two halves: which way each one pushes, what it leaves alone, and the presets that share its loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill import losses
from compressor.distill.adversarial_generator import AdversarialGenerator, adversarial_shape
from compressor.distill.generator import load_generator
from compressor.distill.monitor import OutputMonitor
from compressor.distill.training import Context, read_log
from compressor.errors import InputRefused, UsageFault
from compressor.inputs.teacher import Task, Teacher
from compressor.methods import TrainingImages, dafl, ddad, dfad, dfq
from compressor.methods.dfad import Config, generator_terms, held_constant, student_terms, weighted_sum
from compressor.students.student import Student, own_classifier

PLAIN: dict[str, Any] = {"student_steps": 4, "student_batch_size": 6, "generator_width": 8, "latent_dim": 4}
EMPTY = TrainingImages(tiny.images(0), tiny.images(0))


def make_generator() -> AdversarialGenerator:
    torch.manual_seed(0)
    return AdversarialGenerator(adversarial_shape("a", tiny.card(), largest_side=8, latent_dim=4, width=8)).train()


def make_student(teacher: Teacher) -> Student:
    torch.manual_seed(0)
    student: Student = own_classifier(tiny.backbone(), teacher)
    return student.train()


def monitor() -> OutputMonitor:
    return OutputMonitor(tiny.NUM_CLASSES, torch.device("cpu"))


def some_images(count: int = 16) -> Tensor:
    images: Tensor = tiny.images(count).float() / 255.0
    return images


# --- the signs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["mae", "log"])
def test_the_student_half_lowers_the_discrepancy_and_the_generator_half_raises_it(tmp_path: Path, form: str) -> None:
    teacher, context = tiny.teacher(), Context(tmp_path)
    student, generator = make_student(teacher), make_generator()
    config = Config(**PLAIN, adversarial_form=form)
    z, labels = generator.latents(32, context.random)

    def gap() -> float:
        """On the same z, as both halves see it."""
        with torch.no_grad(), held_constant(student):
            images = generator(z, labels)
            return losses.discrepancy(student(images), teacher(images).logits).item()

    before = gap()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.02)
    weighted_sum(student_terms(student, teacher, generator(z).detach(), config, context, monitor()), config).backward()
    optimiser.step()
    learned = gap()
    assert learned < before - 1e-3
    generator_optimiser = torch.optim.SGD(generator.parameters(), lr=0.02)
    weighted_sum(generator_terms(student, teacher, generator(z), config, context), config).backward()
    generator_optimiser.step()
    assert gap() > learned + 1e-3


def test_the_generator_half_is_minus_the_student_half(tmp_path: Path) -> None:
    teacher, context, config = tiny.teacher(), Context(tmp_path), Config(**PLAIN)
    student = make_student(teacher)
    lowered = student_terms(student, teacher, some_images(), config, context, monitor())
    raised = generator_terms(student, teacher, some_images(), config, context)
    assert lowered.keys() == {"discrepancy"}
    assert raised.keys() == {"adversarial"}
    assert raised["adversarial"].item() == pytest.approx(-lowered["discrepancy"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "form", "log"),
    [
        ("classification", "auto", False),
        ("segmentation", "auto", True),
        ("regression", "auto", False),
        ("classification", "log", True),
        ("segmentation", "mae", False),
    ],
)
def test_segmentation_takes_the_log_form(tmp_path: Path, task: Task, form: str, log: bool) -> None:
    dense, context, config = task == "segmentation", Context(tmp_path), Config(**PLAIN, adversarial_form=form)
    teacher = tiny.dense_teacher() if dense else tiny.teacher(task=task)
    student = own_classifier(tiny.dense_backbone() if dense else tiny.backbone(), teacher).train()
    value = generator_terms(student, teacher, some_images(), config, context)["adversarial"].item()
    with held_constant(student):
        gap = losses.discrepancy(student(some_images()), teacher(some_images()).logits)
    assert value == pytest.approx(-(torch.log(gap + 1.0) if log else gap).item(), rel=1e-5)


# --- the student as a constant ----------------------------------------------------------------------------------------


def test_the_student_held_constant_normalises_by_its_batch_and_remembers_nothing() -> None:
    teacher = tiny.teacher()
    student = own_classifier(tiny.backbone_with_dropout(), teacher).train()
    trainable = [parameter.requires_grad for parameter in student.parameters()]
    before = tiny.snapshot(student)
    with held_constant(student):
        output, again = student(some_images()), student(some_images())
        assert not output.requires_grad
    assert torch.equal(output, again), "dropout drew something"
    assert not torch.allclose(output, student.eval()(some_images()), atol=1e-3), "it used running statistics"
    assert tiny.equal(tiny.snapshot(student), before)
    student.train()
    assert [parameter.requires_grad for parameter in student.parameters()] == trainable
    student(some_images())
    assert not tiny.equal(tiny.snapshot(student), before), "the running statistics were left switched off"


def test_the_student_is_free_again_after_an_error() -> None:
    student = make_student(tiny.teacher())
    with pytest.raises(ZeroDivisionError), held_constant(student):
        _ = 1 / 0
    assert all(parameter.requires_grad for parameter in student.parameters())


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_generator_step_follows_every_fifth_student_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for optimiser, name in ((torch.optim.SGD, "S"), (torch.optim.Adam, "G")):
        step = optimiser.step

        def count(self: Any, *args: Any, name: str = name, step: Any = step, **options: Any) -> Any:
            order.append(name)
            return step(self, *args, **options)

        monkeypatch.setattr(optimiser, "step", count)
    settings = Config(**{**PLAIN, "student_steps": 12})
    dfad.distill(tiny.teacher(), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    assert "".join(order) == "SSSSSG" * 2 + "SS"


def test_images_that_are_there_change_nothing(tmp_path: Path) -> None:
    students = []
    for images in (EMPTY, tiny.training_images()):
        folder = tmp_path / str(len(images.few))
        folder.mkdir()
        found = dfad.distill(tiny.teacher(), tiny.backbone(), images, Config(**PLAIN), Context(folder))
        students.append(tiny.snapshot(found.student))
    assert tiny.equal(*students)


def test_the_gap_falls_on_a_generator_that_stands_still(tmp_path: Path) -> None:
    settings = Config(**{**PLAIN, "student_steps": 80, "student_batch_size": 16}, generator_every=1000, student_lr=0.02)
    dfad.distill(tiny.teacher(), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    rows = [row["terms"]["discrepancy"] for row in read_log(tmp_path / "log.jsonl")]
    assert sum(rows[-5:]) < 0.6 * sum(rows[:5])


def test_the_generators_gradient_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.Adam.step

    def look(self: torch.optim.Adam, *args: Any, **options: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm().item())
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    settings = Config(**PLAIN, generator_every=2, generator_clip=1e-3)
    dfad.distill(tiny.teacher(), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    assert norms == pytest.approx([1e-3] * 2, rel=1e-2)


def test_the_generator_is_described_and_can_be_rebuilt(tmp_path: Path) -> None:
    found = dfad.distill(tiny.teacher(), tiny.backbone(), EMPTY, Config(**PLAIN), Context(tmp_path))
    generator, facts = found.generator, found.facts
    assert isinstance(generator, AdversarialGenerator)
    assert not generator.aims_at_realism
    assert not any(module.training for module in generator.modules())
    rebuilt = load_generator(generator.state_dict(), vars(generator.shape))
    z, labels = generator.latents(3, torch.Generator().manual_seed(0))
    # Not bitwise on every processor: trained weights lie in memory otherwise than rebuilt ones.
    assert torch.allclose(rebuilt(z, labels), generator(z, labels), atol=1e-6)
    assert facts["generator_resolution"] == (8, 8)
    assert facts["generator_note"].startswith("Images are generated at 8x8 to be hard for the student")
    assert facts["teacher_output_magnitude"] > 0
    assert 0.0 <= facts["synthetic_class_entropy"] <= 1.0
    assert facts["departures"] == dfad.DEPARTURES


def test_few_classes_are_warned_of() -> None:
    teacher, watch = tiny.teacher(), monitor()
    watch.observe(torch.eye(tiny.NUM_CLASSES)[torch.tensor([2, 2, 2, 2])])
    facts = dfad.facts_of(teacher, make_generator(), watch)
    assert facts["synthetic_class_entropy"] == pytest.approx(0.0, abs=1e-6)
    assert "class_balance_weight evens them" in facts["generator_note"]


# --- other outputs than classes ---------------------------------------------------------------------------------------


def test_a_regression_teacher_is_learned_from(tmp_path: Path) -> None:
    teacher = tiny.teacher(task="regression")
    found = dfad.distill(teacher, tiny.backbone(), EMPTY, Config(**PLAIN), Context(tmp_path))
    assert found.student(some_images(3)).shape == (3, tiny.NUM_CLASSES)
    assert "synthetic_class_entropy" not in found.facts
    assert "class" not in found.facts["generator_note"]


def test_dense_outputs_pass_through_every_term(tmp_path: Path) -> None:
    teacher, context = tiny.dense_teacher(), Context(tmp_path)
    student = nn.Conv2d(3, tiny.NUM_CLASSES, 3, padding=1)
    config: Config = tiny.settings(Config)
    images = some_images().requires_grad_()
    terms = student_terms(student, teacher, images.detach(), config, context, monitor())  # type: ignore[arg-type]
    terms |= generator_terms(student, teacher, images, config, context)  # type: ignore[arg-type]
    assert terms.keys() == dfad.LOSS_TERMS.keys()
    for name, term in terms.items():
        assert term.shape == (), name
        assert term.isfinite(), name
    weighted_sum(terms, config).backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert student.weight.grad is not None


# --- the presets ------------------------------------------------------------------------------------------------------

# What each recipe switches on: the student's terms, the generator's terms, k.
RECIPES: dict[Any, tuple[dict[str, float], dict[str, float], int]] = {
    dfad: ({"discrepancy": 1.0}, {"adversarial": 1.0}, 5),
    ddad: ({"discrepancy": 1.0}, {"adversarial": 1.0, "batch_norm_distance": 1.0}, 5),
    dfq: (
        {"discrepancy": 1.0},
        {"adversarial": 1.0, "batch_norm_distance": 1.0, "own_class": 1.0, "class_balance": 20.0},
        10,
    ),
    dafl: ({"knowledge_distillation": 1.0}, {"own_class": 1.0, "class_balance": 20.0, "activation": 0.001}, 1),
}


@pytest.mark.parametrize("method", RECIPES, ids=lambda method: method.__name__.rpartition(".")[2])
def test_a_preset_logs_its_own_terms_and_no_others(tmp_path: Path, method: Any) -> None:
    of_student, of_generator, every = RECIPES[method]
    config = method.Config()
    assert config.generator_every == every
    wanted = of_student | of_generator
    for name in dfad.LOSS_TERMS:
        assert getattr(config, f"{name}_weight") == wanted.get(name, 0.0), name
    settings = method.Config(**PLAIN, generator_every=2)
    found = method.distill(tiny.teacher(), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    rows = read_log(tmp_path / "log.jsonl")
    assert [set(row["terms"]) for row in rows] == [set(of_student), set(wanted)] * 2
    assert found.facts["departures"] == method.DEPARTURES


def test_batch_statistics_get_batches_that_are_large_enough() -> None:
    assert dfad.defaults("quick", (3, 32, 32), "cpu")["student_batch_size"] == 64
    for method in (ddad, dfq):
        assert method.defaults("quick", (3, 32, 32), "cpu")["student_batch_size"] == 128
        assert method.defaults("quick", (3, 32, 32), "cuda")["student_batch_size"] == 256


# --- what is refused --------------------------------------------------------------------------------------------------


def test_terms_about_classes_are_refused_where_there_are_none(tmp_path: Path) -> None:
    teacher = tiny.teacher(task="regression")
    settings = Config(**PLAIN, own_class_weight=0.5, class_balance_weight=1.0)
    with pytest.raises(InputRefused) as refused:
        dfad.distill(teacher, tiny.backbone(), EMPTY, settings, Context(tmp_path))
    assert "own_class_weight and class_balance_weight are above 0" in str(refused.value)
    assert "Set own_class_weight=0, class_balance_weight=0." in str(refused.value)
    assert not (tmp_path / "log.jsonl").exists()


def test_the_batch_norm_term_is_refused_where_there_is_no_batch_norm(tmp_path: Path) -> None:
    settings = Config(**PLAIN, batch_norm_distance_weight=0.5)
    with pytest.raises(InputRefused) as refused:
        dfad.distill(tiny.teacher("lenet5"), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    assert "batch_norm_distance_weight is 0.5, and the teacher (lenet5) has no batch norm." in str(refused.value)
    assert "Set batch_norm_distance_weight=0" in str(refused.value)


@pytest.mark.parametrize(("network", "weight"), [("student", "discrepancy"), ("generator", "adversarial")])
def test_a_network_that_nothing_trains_is_refused(tmp_path: Path, network: str, weight: str) -> None:
    settings = Config(**PLAIN, **{f"{weight}_weight": 0.0})
    with pytest.raises(UsageFault, match=rf"Nothing trains the {network}: .* are all 0\.") as refused:
        dfad.distill(tiny.teacher(), tiny.backbone(), EMPTY, settings, Context(tmp_path))
    assert f"Set {weight}_weight=1." in str(refused.value)
