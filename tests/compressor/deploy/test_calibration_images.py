"""What int8 is calibrated and chosen on: real images, realistic generated ones, and never white noise."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from compressor.deploy.calibration_images import (
    JUDGED_SYNTHETIC,
    MOST_OF_POOL,
    MOST_REAL,
    NUM_PATTERNS,
    SYNTHETIC_CANDIDATES,
    confidences,
    draw,
    gather,
)
from compressor.distill.generator import ConditionalGenerator, Generator, GeneratorShape
from compressor.inputs.pixels import StoredImages


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return ConditionalGenerator(GeneratorShape((3, 8, 8), (8, 8), num_classes=3, latent_dim=4, width=8)).eval()


def images(count: int, seed: int = 0) -> Tensor:
    return tiny.images(count, seed=seed)


def test_real_and_generated_calibrate_and_others_judge(generator: Generator) -> None:
    found = gather(images(40), images(12, seed=1), generator, num_synthetic=96, seed=5)
    assert [len(part) for part in (found.real, found.synthetic, found.select)] == [40, 96, 12]
    np.testing.assert_array_equal(found.real, images(40).numpy() / np.float32(255.0))
    np.testing.assert_array_equal(found.select, images(12, seed=1).numpy() / np.float32(255.0))
    calibrating = {image.tobytes() for image in (*found.real, *found.synthetic)}
    assert not calibrating & {image.tobytes() for image in found.candidates}
    assert found.warnings == ()


def test_of_many_real_images_some_at_even_distances_are_taken() -> None:
    many = images(MOST_REAL + 512)
    found = gather(StoredImages((many, torch.arange(len(many)))), many, None, num_synthetic=0, seed=0)
    assert len(found.real) == len(found.select) == MOST_REAL
    np.testing.assert_array_equal(found.real[[0, -1]], many[[0, -1]].numpy() / np.float32(255.0))
    np.testing.assert_array_equal(found.real, found.select)


def test_generated_images_judge_only_where_the_network_is_as_sure_as_on_real_ones(generator: Generator) -> None:
    found = gather(images(40), images(12, seed=1), generator, num_synthetic=96, seed=5)
    border = float(np.median(found.candidates.mean(axis=(1, 2, 3))))

    def logits(batch: np.ndarray) -> np.ndarray:
        """Sure of the real images, whose mean is not the generator's, and of the brighter half of the others."""
        generated = {image.tobytes() for image in found.candidates}
        sure = [image.tobytes() not in generated or image.mean() > border for image in batch]
        return np.where(np.array(sure)[:, None], [[4.0, 0.0, 0.0]], [[0.1, 0.0, 0.0]]).astype(np.float32)

    judges = found.judges(lambda batch: confidences(logits(batch)))
    assert len(judges.images) == 12 + SYNTHETIC_CANDIDATES // 2
    assert judges.images[12:].mean(axis=(1, 2, 3)).min() > border
    assert judges.words.startswith(f"12 select + {SYNTHETIC_CANDIDATES // 2} generated images, which the network is as")
    assert judges.warning is None


def test_too_few_judges_are_warned_of(generator: Generator) -> None:
    found = gather(images(40), images(12, seed=1), generator, num_synthetic=96, seed=5)
    generated = {image.tobytes() for image in found.candidates}

    def logits(batch: np.ndarray) -> np.ndarray:
        """Sure of real images alone."""
        return np.array([[0.0 if image.tobytes() in generated else 9.0, 0.0] for image in batch], np.float32)

    judges = found.judges(lambda batch: confidences(logits(batch)))
    assert len(judges.images) == 12
    assert judges.warning == "The int8 calibration is chosen on only 12 images, one of which is 8.3 points."


def test_confidences() -> None:
    found = confidences(np.array([[0.0, 0.0], [1000.0, 0.0], [np.log(3.0), 0.0]], np.float32))
    np.testing.assert_allclose(found, [0.5, 1.0, 0.75], rtol=1e-6)


def test_the_draw_repeats_and_is_what_a_file_would_hold(generator: Generator) -> None:
    once, again, other = draw(generator, 70, seed=1), draw(generator, 70, seed=1), draw(generator, 70, seed=2)
    assert once.shape == (70, 3, 8, 8)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    np.testing.assert_allclose(once * 255.0, np.round(once * 255.0), atol=1e-4)
    assert once.min() >= 0.0
    assert once.max() <= 1.0


def test_without_a_generator_it_is_said(generator: Generator) -> None:
    found = gather(images(20), images(0), None, num_synthetic=512, seed=0)
    assert len(found.synthetic) == 0
    assert "leaves no generator" in found.generator_note
    assert any("only 20 images" in warning for warning in found.warnings)
    judges = found.judges(lambda _: pytest.fail("nothing to choose among"))
    np.testing.assert_array_equal(judges.images, found.real)
    assert judges.words == "the 20 images that it was calibrated on"
    assert "that flatters it" in str(judges.warning)


def test_an_adversarial_generator_does_not_calibrate(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "aims_at_realism", False)
    found = gather(images(20), images(5), generator, num_synthetic=512, seed=0)
    assert len(found.synthetic) == 0
    assert len(found.candidates) == 0
    assert found.generator_note in found.warnings
    assert "adversarial" in found.generator_note


@pytest.mark.parametrize("realistic", [True, False])
def test_without_a_real_image_any_generator_calibrates(
    realistic: bool, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "aims_at_realism", realistic)
    found = gather(images(0), images(0), generator, num_synthetic=96, seed=5)
    assert [len(part) for part in (found.real, found.synthetic, found.candidates)] == [0, 96, SYNTHETIC_CANDIDATES]
    assert not found.patterns
    assert ("adversarial" in found.generator_note) == (not realistic)
    assert "check it on some before it ships" in found.warnings[-1]
    judges = found.judges(lambda _: pytest.fail("there is no real image to be as sure of"))
    assert judges.words == f"0 select + {JUDGED_SYNTHETIC} generated images"


@pytest.mark.parametrize("num_synthetic", [0, 512])
def test_with_neither_smooth_patterns_stand_in_and_are_called_so(num_synthetic: int, generator: Generator) -> None:
    found = gather(images(0), images(0), generator if num_synthetic == 0 else None, num_synthetic=num_synthetic, seed=0)
    assert found.patterns
    assert found.synthetic.shape == found.candidates.shape == (NUM_PATTERNS, 3, 8, 8)
    assert not {image.tobytes() for image in found.synthetic} & {image.tobytes() for image in found.candidates}
    assert "smooth random patterns" in found.generator_note
    assert "without any real image" in found.warnings[-1]
    judges = found.judges(None)
    assert judges.words == f"0 select + {NUM_PATTERNS} smooth random patterns"


@pytest.mark.parametrize("num_real", [0, 40])
def test_what_a_method_without_a_generator_has_made_calibrates(num_real: int) -> None:
    made = images(64, seed=2)
    found = gather(images(40)[:num_real], images(4, seed=1), None, num_synthetic=48, seed=5, kept=made)
    assert (len(found.real), len(found.synthetic), len(found.candidates)) == (num_real, 32, 32)  # half each
    assert not {i.tobytes() for i in found.synthetic} & {i.tobytes() for i in found.candidates}
    assert "that the method made" in found.generator_note
    assert not found.patterns
    assert any("without any real image" in warning for warning in found.warnings) == (num_real == 0)


def test_outputs_that_are_no_logits_filter_nothing(generator: Generator) -> None:
    found = gather(images(40), images(12, seed=1), generator, num_synthetic=96, seed=5)
    judges = found.judges(None)
    assert judges.words == f"12 select + {JUDGED_SYNTHETIC} generated images"


def test_the_confidence_of_class_maps_is_a_mean_over_pixels() -> None:
    logits = np.zeros((1, 2, 1, 2), np.float32)
    logits[0, 0, 0, 1] = 1000.0
    np.testing.assert_allclose(confidences(logits), [0.75])


# --- no image of the task, but a pool ---------------------------------------------------------------------------------


def test_a_pool_stands_in_evenly_and_is_not_called_real(generator: Generator) -> None:
    pool = images(3 * MOST_OF_POOL)
    found = gather(images(0), images(0), generator, num_synthetic=96, seed=5, pool=pool)
    assert found.of_pool
    assert (len(found.real), len(found.select), len(found.synthetic)) == (MOST_OF_POOL, MOST_OF_POOL, 96)
    place = {image.numpy().tobytes(): index for index, image in enumerate(pool)}
    used = [
        [place[np.round(image * 255.0).astype(np.uint8).tobytes()] for image in part]
        for part in (found.real, found.select)
    ]
    assert not {*used[0]} & {*used[1]}
    assert used[0][0] == 0
    assert used[1][-1] == len(pool) - 1  # folders that come last are seen too
    assert "unknown relation to it" in found.warnings[0]
    assert "check it on some before it ships" in found.warnings[0]
    judges = found.judges(lambda _: pytest.fail("there is no image of the task to be as sure of"))
    assert judges.words == f"{MOST_OF_POOL} pool images + {JUDGED_SYNTHETIC} generated images"


def test_a_pool_alone_calibrates_and_judges_on_other_images() -> None:
    found = gather(images(0), images(0), None, num_synthetic=96, seed=5, pool=images(20))
    assert (len(found.real), len(found.select), len(found.synthetic)) == (10, 10, 0)
    assert found.generator_note.endswith("int8 is calibrated on pool images of unknown relation to the task alone.")
    assert "real images" not in " ".join((found.generator_note, *found.warnings[1:]))
    assert found.judges(None).words == "10 pool images + 0 generated images"


def test_images_of_the_task_leave_the_pool_alone() -> None:
    with_pool = gather(images(40), images(4, seed=1), None, num_synthetic=0, seed=0, pool=images(50, seed=2))
    without = gather(images(40), images(4, seed=1), None, num_synthetic=0, seed=0)
    assert not with_pool.of_pool
    np.testing.assert_array_equal(with_pool.real, without.real)
    assert with_pool.warnings == without.warnings


def test_the_advice_is_the_callers() -> None:
    found = gather(images(20), images(4), None, num_synthetic=0, seed=0, more="More --samples would help.")
    assert found.warnings[0].endswith("are those of single images. More --samples would help.")
