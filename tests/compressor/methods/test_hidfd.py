"""HiDFD, part by part: the specification's acceptance tests 1 to 7, on tiny networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill import losses
from compressor.distill.augment import draw_views
from compressor.distill.generator import ConditionalGenerator, Discriminator, Generator, GeneratorShape
from compressor.distill.training import Context, read_log
from compressor.errors import Interrupted
from compressor.inputs.teacher import Teacher
from compressor.methods import hidfd
from compressor.methods.hidfd import Config, GanBatch, discriminator_terms, gan_batch, generator_terms, survey
from compressor.students.specification import build_backbone


def settings(**changes: Any) -> Config:
    return tiny.settings(Config, **changes)  # type: ignore[no-any-return]


def make_generator(teacher: Teacher) -> Generator:
    torch.manual_seed(0)
    shape = teacher.card.input_shape
    return ConditionalGenerator(GeneratorShape(shape, shape[1:], teacher.card.num_classes, latent_dim=4, width=8))


def make_discriminator(teacher: Teacher) -> Discriminator:
    torch.manual_seed(0)
    channels, height, width = teacher.card.input_shape
    feature_dim = teacher.classifier.in_features
    return Discriminator(channels, (height, width), teacher.card.num_classes, feature_dim, width=8)


def one_batch(teacher: Teacher, generator: Generator, context: Context, **changes: Any) -> GanBatch:
    images = tiny.images(16, teacher.card.input_shape)
    labels, _ = survey(teacher, images)
    config = settings(**changes)
    rows = torch.randint(len(images), (config.generator_batch_size,), generator=context.random)
    latents = generator.latents(config.generator_batch_size, context.random)
    size = teacher.card.input_shape[1:]
    views = (draw_views(len(rows), size, context.random, flip=True) for _ in range(2))
    return gan_batch(teacher, generator, images[rows], labels[rows], *latents, *views, config=config, context=context)


# --- 1: feature integration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["feature_integration_matched", "feature_integration_crossed"])
def test_feature_integration_alone_trains_head_and_first_convolution(tmp_path: Path, term: str) -> None:
    context, teacher = Context(tmp_path), tiny.teacher()
    generator, discriminator = make_generator(teacher), make_discriminator(teacher)
    batch = one_batch(teacher, generator, context)
    discriminator_terms(discriminator, batch, 1.0, context)[term].backward()
    first: nn.Module = discriminator.blocks[0]
    for name, parameter in (
        ("head", discriminator.feature_head.weight),
        ("first convolution", first.get_parameter("conv1.parametrizations.weight.original")),
    ):
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in discriminator.class_logits.parameters())


def test_feature_integration_sees_real_and_synthetic_images_on_their_own_sides(tmp_path: Path) -> None:
    context, teacher = Context(tmp_path), tiny.teacher()
    discriminator = make_discriminator(teacher).eval()
    batch = one_batch(teacher, make_generator(teacher), context)
    terms = discriminator_terms(discriminator, batch, 2.0, context)
    head_real, head_synthetic = (discriminator(images).features for images in (batch.real, batch.synthetic))
    target_real, target_synthetic = (out.features / 2.0 for out in (batch.teacher_real, batch.teacher_synthetic))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(dim=1).sqrt().mean()

    matched = distance(target_real, head_real) + distance(target_synthetic, head_synthetic)
    crossed = distance(target_real, head_synthetic) + distance(target_synthetic, head_real)
    assert terms["feature_integration_matched"].item() == pytest.approx(matched.item(), rel=1e-4)
    assert terms["feature_integration_crossed"].item() == pytest.approx(crossed.item(), rel=1e-4)


def test_the_scale_of_the_targets_is_their_norm_on_the_real_images() -> None:
    teacher, images = tiny.teacher(), tiny.images(300)
    labels, norm = survey(teacher, images)
    output = teacher(images.float() / 255.0)
    assert torch.equal(labels, output.logits.argmax(dim=1))
    assert norm == pytest.approx(output.features.norm(dim=1).mean().item(), rel=1e-5)


# --- 2 and 3: category frequency smoothing, in the real loop ---------------------------------------------------------


def frequency_after(folder: Path, num_steps: int) -> dict[str, Tensor]:
    """The frequency's state in the checkpoint of a run of 100 generator steps (period 2) that is stopped early."""
    calls = iter(range(1, num_steps + 1))
    context = Context(folder, should_stop=lambda: next(calls) == num_steps)
    with pytest.raises(Interrupted):
        hidfd.train_generator(tiny.teacher(), tiny.images(), False, settings(generator_steps=100), context)
    saved = torch.load(folder / "checkpoint-generator.pt", weights_only=True)
    state: dict[str, Tensor] = saved["state"]["frequency"]
    return state


def check_weights_leave_one(folder: Path) -> None:
    before = frequency_after(folder, 1)
    assert torch.equal(before["class_weights"], torch.ones(tiny.NUM_CLASSES))
    assert before["counts"].sum() == 6  # one synthetic batch
    after = frequency_after(folder, 1)  # one more: the second of the period
    weights, frequency = after["class_weights"], after["frequency"]
    assert not torch.allclose(weights, torch.ones(tiny.NUM_CLASSES), atol=1e-3), "the weights never leave 1"
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights.argmax() == frequency.argmin()
    assert after["counts"].sum() == 0


def test_the_class_weights_leave_one_after_their_period(tmp_path: Path) -> None:
    check_weights_leave_one(tmp_path)


def test_an_update_that_is_never_called_would_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_count(self: losses.ClassFrequency, predictions: Tensor, step: int) -> None:
        self.counts += torch.bincount(predictions, minlength=len(self.counts))

    monkeypatch.setattr(losses.ClassFrequency, "observe", only_count)
    with pytest.raises(AssertionError, match="the weights never leave 1"):
        check_weights_leave_one(tmp_path)


def test_the_weights_that_were_updated_are_those_that_the_loss_uses(tmp_path: Path) -> None:
    context, teacher = Context(tmp_path), tiny.teacher()
    generator, discriminator = make_generator(teacher), make_discriminator(teacher)
    batch = one_batch(teacher, generator, context)
    frequency = losses.ClassFrequency(torch.full((tiny.NUM_CLASSES,), 6.0), period=1)
    term = "category_frequency_smoothing"
    before = generator_terms(discriminator, batch, frequency, context)[term]
    frequency.observe(torch.zeros(6, dtype=torch.long), step=0)
    after = generator_terms(discriminator, batch, frequency, context)[term]
    marginal = batch.teacher_synthetic.logits.softmax(dim=1).mean(dim=0)
    assert before.item() == pytest.approx((marginal * marginal.log()).sum().item(), abs=1e-5)
    expected = (frequency.class_weights * marginal * marginal.log()).sum()
    assert after.item() == pytest.approx(expected.item(), abs=1e-5)
    assert after.item() != pytest.approx(before.item(), abs=1e-3)


def test_the_prior_is_one_period_of_the_real_images_classes(tmp_path: Path) -> None:
    before = frequency_after(tmp_path, 1)
    labels, _ = survey(tiny.teacher(), tiny.images())
    share = torch.bincount(labels, minlength=tiny.NUM_CLASSES) / len(labels)
    assert torch.allclose(before["frequency"], (share * 2 * 6).clamp_min(1.0))  # two steps of six images


def test_smoothing_reaches_the_generator_through_the_teacher_alone(tmp_path: Path) -> None:
    context, teacher = Context(tmp_path), tiny.teacher()
    generator, discriminator = make_generator(teacher), make_discriminator(teacher)
    batch = one_batch(teacher, generator, context)
    frequency = losses.ClassFrequency(torch.ones(tiny.NUM_CLASSES), period=1)
    generator_terms(discriminator, batch, frequency, context)["category_frequency_smoothing"].backward()
    assert generator.get_parameter("stem.parametrizations.weight.original").grad is not None
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


# --- 4: one path from an image to the teacher's opinion --------------------------------------------------------------


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"channel_order": "BGR", "value_range": (0.0, 255.0), "mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)},
        {"value_range": (-1.0, 1.0), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        {"image_shape": (1, 8, 8)},
    ],
    ids=["mean and std", "BGR bytes", "-1 to 1", "grey"],
)
def test_the_gan_shows_the_teacher_what_its_own_preprocessing_would(tmp_path: Path, card: dict[str, Any]) -> None:
    teacher, context = tiny.teacher(**card), Context(tmp_path)
    batch = one_batch(teacher, make_generator(teacher), context)
    facts = teacher.card
    low, high = facts.value_range
    for images, output in ((batch.real, batch.teacher_real), (batch.synthetic, batch.teacher_synthetic)):
        raw = images.flip(1) if facts.channel_order == "BGR" else images
        mean, std = (torch.tensor(values)[:, None, None] for values in (facts.mean, facts.std))
        logits = teacher.network((low + raw * (high - low) - mean) / std)
        assert torch.allclose(output.logits, logits, atol=1e-4 * max(1.0, float(logits.detach().abs().max())))


def test_the_discriminator_and_the_teacher_get_the_same_view(tmp_path: Path) -> None:
    teacher, context = tiny.teacher(), Context(tmp_path)
    batch = one_batch(teacher, make_generator(teacher), context, augment="on")
    assert torch.allclose(teacher(batch.real).features, batch.teacher_real.features, atol=1e-6)
    assert torch.allclose(teacher(batch.synthetic).features, batch.teacher_synthetic.features, atol=1e-6)


def test_without_augmentation_a_real_image_and_its_pseudo_label_are_as_they_were(tmp_path: Path) -> None:
    teacher, context = tiny.teacher(), Context(tmp_path)
    images = tiny.images().float() / 255.0
    batch = one_batch(teacher, make_generator(teacher), context, augment="off")
    for image, label in zip(batch.real, batch.real_labels, strict=True):
        (row,) = [index for index, original in enumerate(images) if torch.equal(original, image)]
        assert label == teacher(images[row : row + 1]).logits.argmax()


# --- 5: classifier sharing -------------------------------------------------------------------------------------------


def test_the_student_ends_in_the_teachers_own_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimised: list[int] = []
    sgd = torch.optim.SGD

    def remember(groups: list[dict[str, Any]], **options: Any) -> torch.optim.SGD:
        optimised.extend(id(parameter) for group in groups for parameter in group["params"])
        return sgd(groups, **options)

    monkeypatch.setattr(torch.optim, "SGD", remember)
    teacher = tiny.teacher()
    options = settings(stage_weight=0.0)
    student = hidfd.distill(teacher, tiny.backbone(), tiny.training_images(), options, Context(tmp_path)).student
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.classifier.bias, teacher.classifier.bias)
    frozen = {id(parameter) for parameter in student.classifier.parameters()}
    assert frozen.isdisjoint(optimised)
    assert {id(parameter) for parameter in student.parameters()} - frozen == set(optimised)
    linear = [name for name, module in student.named_modules() if isinstance(module, nn.Linear)]
    assert linear == ["classifier"], "the student has a head of its own"


def test_without_classifier_sharing_the_student_learns_from_logits(tmp_path: Path) -> None:
    teacher = tiny.teacher()
    options = settings(classifier_sharing="off", logit_weight=0.0, stage_weight=0.0)
    student = hidfd.distill(teacher, tiny.backbone(), tiny.training_images(), options, Context(tmp_path)).student
    assert isinstance(student.projector, nn.Identity)
    assert student.classifier.in_features == 32
    terms = [row["terms"].keys() for row in read_log(tmp_path / "log.jsonl") if row["phase"] == "student"]
    assert all(names == {"knowledge_distillation"} for names in terms)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, {"feature_alignment", "stage_alignment"}), (hidfd.PAPER, {"feature_alignment"})],
    ids=["ours", "the paper"],
)
def test_what_the_student_learns_from(tmp_path: Path, changes: dict[str, Any], expected: set[str]) -> None:
    default = Config()
    options = settings(**{"logit_weight": default.logit_weight, "stage_weight": default.stage_weight, **changes})
    distilled = hidfd.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), options, Context(tmp_path))
    terms = [row["terms"].keys() for row in read_log(tmp_path / "log.jsonl") if row["phase"] == "student"]
    assert terms
    assert all(names == expected for names in terms)
    assert (hidfd.HINTS in distilled.facts["departures"]) == ("stage_alignment" in expected)


def test_what_the_hints_need_does_not_ship(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = hidfd.distill(
        tiny.teacher(), tiny.backbone(), tiny.training_images(), settings(stage_weight=1.0), Context(tmp_path / "a")
    )
    without = hidfd.distill(
        tiny.teacher(), tiny.backbone(), tiny.training_images(), settings(stage_weight=0.0), Context(tmp_path / "b")
    )
    assert whole.student.state_dict().keys() == without.student.state_dict().keys()
    assert not any(module._forward_hooks for module in whole.student.modules())


@pytest.mark.parametrize(("setting", "projects"), [("auto", False), ("on", True)])
def test_a_student_of_the_teachers_blocks_needs_no_projector(tmp_path: Path, setting: str, projects: bool) -> None:
    teacher = tiny.teacher("cifar_resnet14")
    backbone = build_backbone("cifar_resnet8", teacher, channel_multiple=1, seed=0)
    distilled = hidfd.distill(teacher, backbone, tiny.training_images(), settings(projector=setting), Context(tmp_path))
    assert distilled.student.card.projector is projects
    assert torch.equal(distilled.student.classifier.weight, teacher.classifier.weight)
    assert (hidfd.NO_PROJECTOR in distilled.facts["departures"]) != projects


# --- 6: data inflation -----------------------------------------------------------------------------------------------


def batches_of(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: Any) -> list[tuple[int, int]]:
    """Real and synthetic images in every batch of a student that is trained on 16 images."""
    seen: list[tuple[int, int]] = []
    known = {image.numpy().tobytes() for image in tiny.images().float() / 255.0}

    def look(images: Tensor, _random: torch.Generator, *, flip: bool) -> Tensor:
        real = sum(image.numpy().tobytes() in known for image in images)
        seen.append((real, len(images) - real))
        return images

    monkeypatch.setattr(hidfd, "student_augmentation", look)
    options = settings(student_batch_size=20, generator_steps=1, **changes)
    hidfd.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), options, Context(folder))
    return seen


@pytest.mark.parametrize(("fraction", "num_real"), [(0.0, 0), (0.05, 1), (0.3, 6), (0.5, 10), (0.95, 19)])
def test_the_real_share_of_every_batch_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: float, num_real: int
) -> None:
    seen = batches_of(monkeypatch, tmp_path, real_fraction=fraction)
    assert seen == [(num_real, 20 - num_real)] * 4


@pytest.mark.parametrize("changes", [{"real_fraction": 1.0}, {"generator_steps": 0}], ids=str)
def test_without_synthetic_images_no_generator_is_trained(tmp_path: Path, changes: dict[str, Any]) -> None:
    distilled = hidfd.distill(
        tiny.teacher(), tiny.backbone(), tiny.training_images(), settings(**changes), Context(tmp_path)
    )
    assert distilled.generator is None
    assert {row["phase"] for row in read_log(tmp_path / "log.jsonl")} == {"student"}


# --- 7 is in test_resume.py; what is left of the generator ----------------------------------------------------------


def test_the_generator_is_averaged_settled_and_described(tmp_path: Path) -> None:
    distilled = hidfd.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings(), Context(tmp_path))
    generator, facts = distilled.generator, distilled.facts
    assert isinstance(generator, Generator)
    # Batch statistics of the averaged weights, over fresh batches.
    assert {m.num_batches_tracked.item() for m in generator.modules() if isinstance(m, nn.BatchNorm2d)} == {16}  # type: ignore[union-attr]
    assert not any(module.training for module in generator.modules())
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    images = generator(*generator.latents(5, torch.Generator().manual_seed(0)))
    assert images.shape == (5, *tiny.IMAGE_SHAPE)
    assert ((images >= 0) & (images <= 1)).all()
    assert facts["generator_resolution"] == (8, 8)
    assert facts["generator_note"].startswith("Images are generated at 8x8. The teacher sees the class")
    assert 0.0 <= facts["synthetic_class_consistency"] <= 1.0
    assert 0.0 <= facts["synthetic_class_entropy"] <= 1.0
    assert sum(facts["class_weights"]) == pytest.approx(tiny.NUM_CLASSES, abs=1e-3)
    assert facts["departures"][: len(hidfd.DEPARTURES)] == hidfd.DEPARTURES
    assert facts["choices"][0]["name"] == "mirror images"


def test_the_average_follows_the_last_twentieth_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decays: list[float] = []
    monkeypatch.setattr(hidfd, "update_average", lambda _average, _generator, decay: decays.append(decay))
    options = settings(generator_steps=40)
    hidfd.train_generator(tiny.teacher(), tiny.images(), False, options, Context(tmp_path))
    assert decays[:3] == pytest.approx([1 / 10, 2 / 11, 3 / 12])
    assert decays[-1] == pytest.approx(1 - 20 / 40)


def test_the_average_lags_behind_the_generator_and_is_resumed(tmp_path: Path) -> None:
    def train(folder: Path, stop: int = 0) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        steps = iter(range(1, 100))
        context = Context(folder, should_stop=lambda: next(steps) == stop)
        options = settings(generator_steps=40)
        return hidfd.train_generator(tiny.teacher(), tiny.images(), False, options, context)[0].state_dict()

    whole = train(tmp_path / "whole")
    state = torch.load(tmp_path / "whole" / "checkpoint-generator.pt", weights_only=True)["state"]
    name = "stem.parametrizations.weight.original"
    assert torch.equal(whole[name], state["average"][name])
    assert not torch.equal(whole[name], state["generator"][name])
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stop=30)
    assert tiny.equal(train(tmp_path / "stopped"), whole)


def test_above_64_pixels_the_report_says_at_which_size_images_are_made(tmp_path: Path) -> None:
    teacher = tiny.teacher(image_shape=(3, 80, 80))
    generator, facts = hidfd.train_generator(
        teacher,
        tiny.images(4, (3, 80, 80)),
        False,
        settings(generator_steps=1, generator_batch_size=2),
        Context(tmp_path),
    )
    assert generator(*generator.latents(1, torch.Generator().manual_seed(0))).shape == (1, 3, 80, 80)
    assert "generated at 64x64, brought to the teacher's 80x80 by interpolation." in facts["generator_note"]


def test_synthetic_quality_of_a_perfect_and_of_a_collapsed_generator(tmp_path: Path) -> None:
    teacher, context = tiny.teacher(), Context(tmp_path)

    class Fixed(nn.Module):
        """Images that a teacher of pixels reads as the label, or always as class 2."""

        def __init__(self, collapsed: bool) -> None:
            super().__init__()
            self.collapsed = collapsed

        def latents(self, count: int, _random: torch.Generator) -> tuple[Tensor, Tensor]:
            return torch.zeros(count, 1), torch.arange(count) % tiny.NUM_CLASSES

        def forward(self, _z: Tensor, labels: Tensor) -> Tensor:
            shown = torch.full_like(labels, 2) if self.collapsed else labels
            return shown[:, None, None, None].float().expand(-1, *tiny.IMAGE_SHAPE)

    class Reader(nn.Module):
        card = teacher.card

        def forward(self, images: Tensor) -> Any:
            logits = torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), tiny.NUM_CLASSES).float()
            return type("Output", (), {"logits": logits})

    quality = [
        hidfd.synthetic_quality(Reader(), Fixed(collapsed), context)  # type: ignore[arg-type]
        for collapsed in (False, True)
    ]
    assert quality[0] == pytest.approx((1.0, 1.0))
    assert quality[1] == pytest.approx((0.25, 0.0), abs=1e-6)


def test_the_paper_s_size_is_full_effort_on_a_gpu() -> None:
    config = Config(**hidfd.defaults("full", (3, 32, 32), "cuda"))
    assert (config.generator_steps, config.generator_batch_size, config.latent_dim) == (20_000, 100, 128)
    assert (config.generator_width, config.discriminator_width) == (256, 256)
    assert (config.generator_lr, config.discriminator_lr) == (2e-4, 2e-4)
    assert (config.class_weight, config.matched_weight, config.crossed_weight, config.smoothing_weight) == (
        1.0,
        0.1,
        0.1,
        0.1,
    )
    assert config.real_fraction == 0.5


@pytest.mark.parametrize("steps", [1, 50, 100, 5_000, 25_000, 100_000])
def test_the_period_is_a_fiftieth_of_the_run_and_at_most_500_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    periods: list[int] = []

    class Stop(Exception):
        pass

    def remember(_prior: Tensor, period: int) -> None:
        periods.append(period)
        raise Stop

    monkeypatch.setattr(losses, "ClassFrequency", remember)
    with pytest.raises(Stop):
        hidfd.train_generator(tiny.teacher(), tiny.images(), False, settings(generator_steps=steps), Context(tmp_path))
    assert periods == [max(1, min(500, math.floor(steps / 50)))]
