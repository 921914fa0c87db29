"""The benchmark of speed: a tiny run ends with whole rows, and the plain loops compute what the product computes."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from benchmarks import speed
from benchmarks.plain_loop import (
    PlainGanStep,
    PlainStudentStep,
    plain_discriminator,
    plain_discriminator_terms,
    plain_generator,
    plain_generator_terms,
    unfrozen,
)
from benchmarks.speed import Size, seeded_generator, seeded_teacher, settings, table
from compressor.distill.augment import draw_views
from compressor.distill.generator import Discriminator
from compressor.distill.losses import ClassFrequency
from compressor.distill.stage_maps import StagePairs
from compressor.distill.training import Context
from compressor.methods import hidfd
from compressor.students.student import classifier_sharing, named_backbone

SIZE = Size(8, 8, 4, 4, "cifar_resnet8", "cifar_resnet8", 0.25)


def measure(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> list[dict[str, Any]]:
    monkeypatch.setitem(speed.SIZES, "cpu", (SIZE,))  # type: ignore[index]
    monkeypatch.setattr(speed, "SETTLE_S", 0.0)
    monkeypatch.setitem(speed.PEAK_SIDE, "cpu", 32)
    fixed = ["--tiny", "--rounds", "2", "--steps", "1", "--workers", "0", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["speed", "measure", *fixed, *arguments])
    speed.main()
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def test_a_tiny_run_ends_with_whole_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = measure(monkeypatch, tmp_path / "speed.json")
    assert [row["phase"] for row in rows] == ["generator", "student"]
    for row in rows:
        assert {
            "device",
            "torch",
            "torchvision",
            "revision",
            "seed",
            "precision",
            "contention",
            "threads",
        } <= row.keys()
        assert row["loops"].keys() == {"product", "plain", "published"}
        assert row["speedup"].keys() == {"plain", "published"}
        for loop in row["loops"].values():
            assert loop["gflop"] > 0
            assert all(loop[name]["median"] > 0 for name in ("step_ms", "images_per_s", "share_of_peak"))
        # The product's recipe has the terms of the plain loops; otherwise the ratio would compare two methods.
        assert row["terms"]["product"] == row["terms"]["plain"]
    assert rows[0]["loops"]["product"]["gflop"] < rows[0]["loops"]["plain"]["gflop"]
    assert rows[0]["loops"]["plain"]["gflop"] < rows[0]["loops"]["published"]["gflop"]
    assert "predicted minutes" in capsys.readouterr().out
    assert len(table(rows).splitlines()) == 2 + 2 + 1 + 2 + 1
    assert measure(monkeypatch, tmp_path / "speed.json") == rows  # nothing is measured again


@pytest.mark.slow
def test_the_compiled_loop_runs_and_says_what_was_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = measure(monkeypatch, tmp_path / "speed.json", "--compile", "aot_eager", "--phases", "student")
    assert rows[0]["compiled_graphs"] > 0


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_the_loop_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_graph: Any, _inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(speed, "backend_of", lambda _name: broken)
    rows = measure(monkeypatch, tmp_path / "speed.json", "--compile", "inductor", "--phases", "student")
    assert rows[0]["compiled_graphs"] == 0
    assert rows[0]["loops"]["product"]["step_ms"]["median"] > 0


# --- the same mathematics --------------------------------------------------------------------------------------------


def test_product_and_plain_loop_agree_in_every_loss_of_a_gan_step(tmp_path: Path) -> None:
    context, teacher, config = Context(tmp_path), seeded_teacher(SIZE), settings(SIZE, "cpu")
    generator = seeded_generator(SIZE, config).train().requires_grad_(True)
    discriminator = Discriminator(3, (8, 8), speed.NUM_CLASSES, teacher.feature_dim, SIZE.width)
    plain = plain_generator(generator), plain_discriminator(discriminator)
    images = tiny.images(SIZE.batch)
    labels, norm = hidfd.survey(teacher, images)
    z, wanted = generator.latents(SIZE.batch, context.random)
    views = [draw_views(SIZE.batch, (8, 8), context.random, flip=True) for _ in range(2)]
    frequency = ClassFrequency(torch.full((speed.NUM_CLASSES,), 5.0), period=2)

    with teacher.folded():
        batch = hidfd.gan_batch(teacher, generator, images, labels, z, wanted, *views, config=config, context=context)
    ours = hidfd.discriminator_terms(discriminator, batch, norm, context)
    ours |= hidfd.generator_terms(discriminator, batch, copy.deepcopy(frequency), context)

    synthetic = hidfd.differentiable_augmentation(plain[0](z, wanted), views[1])
    real = hidfd.differentiable_augmentation(images.float() / 255.0, views[0])
    on_real, on_synthetic = (unfrozen(teacher)(batch) for batch in (real, synthetic))
    theirs = plain_discriminator_terms(
        plain[1],
        real,
        labels,
        synthetic.detach(),
        wanted,
        on_real.features / norm,
        on_synthetic.features.detach() / norm,
    )
    theirs |= plain_generator_terms(plain[1], synthetic, wanted, on_synthetic.logits, frequency)

    torch.testing.assert_close(batch.synthetic, synthetic, rtol=1e-4, atol=1e-5)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)


def test_product_and_plain_loop_agree_in_the_students_loss(tmp_path: Path) -> None:
    context, teacher, config = Context(tmp_path), seeded_teacher(SIZE), settings(SIZE, "cpu")
    student = classifier_sharing(named_backbone(SIZE.student, 3, SIZE.student_width), teacher).train()
    generator = seeded_generator(SIZE, config)
    step = PlainStudentStep(
        teacher, student, generator, tiny.images(), config, context,
        drawn=tiny.images(seed=1), stages=True, workers=0, seed=0,
    )  # fmt: skip
    images = torch.rand(4, 3, 8, 8)
    step.real, step.drawn = iter([(images[:2], None)]), iter([(images[2:], None)])  # type: ignore[assignment]
    with teacher.folded():
        pairs = StagePairs(student, teacher, tiny.images().float() / 255.0)
        assert step.pairs is not None
        pairs.load_state_dict(step.pairs.state_dict())
        ours = hidfd.student_terms(student, teacher, images, context, pairs, align=True, distil=False)
    assert len(ours) == 2
    assert step() == pytest.approx({name: value.item() for name, value in ours.items()}, rel=1e-4)


def test_the_published_step_makes_two_batches_and_the_plain_one(tmp_path: Path) -> None:
    teacher, config = seeded_teacher(SIZE), settings(SIZE, "cpu")
    generator = seeded_generator(SIZE, config).train().requires_grad_(True)
    discriminator = Discriminator(3, (8, 8), speed.NUM_CLASSES, teacher.feature_dim, SIZE.width)
    images = tiny.images()
    labels, norm = hidfd.survey(teacher, images)
    frequency = ClassFrequency(torch.full((speed.NUM_CLASSES,), 5.0), period=2)
    for separate in (False, True):
        step = PlainGanStep(
            teacher, generator, discriminator, images, labels, norm, frequency, config,
            separate=separate, workers=0, seed=0,
        )  # fmt: skip
        made: list[int] = []
        step.generator.register_forward_hook(lambda *_, made=made: made.append(1))
        before = tiny.snapshot(step.generator)
        log = step()
        assert len(made) == 1 + separate
        assert len(log) == 7
        assert not tiny.equal(before, step.generator.state_dict())
        # Nobody froze the teacher: its weights have gradients that nothing uses.
        assert all(p.grad is not None for p in step.teacher.network.parameters())


def test_the_split_of_a_run_counts_training_once() -> None:
    class Part:
        def __init__(self, **facts: Any) -> None:
            self.__dict__.update(facts)

    report: Any = Part(
        distillation=Part(phases=(Part(name="generator", seconds=60.0), Part(name="student", seconds=30.0))),
        stages=(Part(name="teacher", seconds=2.0), Part(name="distill", seconds=94.0), Part(name="onnx", seconds=4.0)),
    )
    lines = speed.time_split(report).splitlines()
    assert lines[2:] == [
        "| training: generator | 60.0 | 60.0% |",
        "| training: student | 30.0 | 30.0% |",
        "| teacher | 2.0 | 2.0% |",
        "| distill, outside its loops | 4.0 | 4.0% |",
        "| onnx | 4.0 | 4.0% |",
        "| all but training | 10.0 | 10.0% |",
    ]
