"""A pool is asked about once, drawn from as selected, and resumed with its selection."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from compressor.distill.pool import CACHE, Kept, SurveyedPool, selection_due, student_opinion, survey
from compressor.distill.training import Context
from compressor.stages import CHECKPOINTS
from compressor.students.student import own_classifier


def surveyed(num_few: int = 0, count: int = 10) -> SurveyedPool:
    return SurveyedPool(tiny.images(count), torch.zeros(count, tiny.NUM_CLASSES), num_few)


def test_the_teacher_is_asked_about_each_image_as_it_is(tmp_path: Path) -> None:
    teacher, images = tiny.teacher(), tiny.images(300)
    before = teacher.num_queries
    pool = survey(teacher, images, 0, Context(tmp_path))
    assert teacher.num_queries - before == 300
    assert pool.logits.dtype == torch.float32
    assert not pool.logits.requires_grad
    expected = torch.cat([teacher(part.float() / 255.0).logits for part in images.split(256)])
    assert torch.equal(pool.logits, expected.detach())


def test_a_resumed_run_asks_nothing_again(tmp_path: Path) -> None:
    images = tiny.images(20)
    first = survey(tiny.teacher(), images, 0, Context(tmp_path))
    teacher = tiny.teacher(seed=5)  # would answer otherwise
    before = teacher.num_queries
    again = survey(teacher, images, 0, Context(tmp_path))
    assert teacher.num_queries == before
    assert torch.equal(again.logits, first.logits)


def test_the_answers_go_when_the_stage_is_done(tmp_path: Path) -> None:
    survey(tiny.teacher(), tiny.images(5), 0, Context(tmp_path))
    assert [path.name for path in tmp_path.glob(CHECKPOINTS)] == [CACHE]


def test_a_batch_is_what_the_rows_say_between_zero_and_one() -> None:
    pool = surveyed()
    batch = pool.batch(torch.tensor([7, 0, 7]))
    assert torch.equal((batch * 255.0).round().to(torch.uint8), pool.images[[7, 0, 7]])


def test_the_students_opinion_changes_nothing_of_the_student(tmp_path: Path) -> None:
    teacher = tiny.teacher()
    student = own_classifier(tiny.backbone(), teacher).train()
    before, context = tiny.snapshot(student), Context(tmp_path)
    pool = survey(teacher, tiny.images(9), 0, context)
    opinion = student_opinion(student, pool, context)
    assert tiny.equal(tiny.snapshot(student), before)
    assert all(module.training for module in student.modules())
    assert not opinion.requires_grad
    expected = student.eval()(tiny.images(9).float() / 255.0)
    assert torch.equal(opinion, expected.detach())


def test_only_kept_rows_are_drawn_and_all_of_them() -> None:
    kept = Kept(surveyed())
    random = torch.Generator().manual_seed(0)
    assert set(kept.draw(500, random).tolist()) == set(range(10))
    kept.choose(torch.tensor([False, True, True, *[False] * 6, True]))
    assert set(kept.draw(500, random).tolist()) == {1, 2, 9}
    assert kept.history == [3]


def test_images_of_the_task_are_always_kept() -> None:
    kept = Kept(surveyed(num_few=4))
    mask = torch.zeros(10, dtype=torch.bool)
    kept.choose(mask)
    assert kept.rows.tolist() == [0, 1, 2, 3]
    assert not mask.any(), "the caller's mask is the caller's"


def test_a_selection_is_part_of_the_state() -> None:
    kept, other = Kept(surveyed()), Kept(surveyed())
    kept.choose(torch.arange(10) % 2 == 0)
    other.load_state_dict(kept.state_dict())
    assert other.rows.tolist() == [0, 2, 4, 6, 8]
    assert other.history == [5]
    other.choose(torch.arange(10) < 1)
    assert kept.history == [5], "the saved history is a copy"


@pytest.mark.parametrize(("num_steps", "num_selections"), [(4000, 12), (100, 100), (7, 3), (1, 12), (6, 12), (12, 1)])
def test_selections_come_at_even_distances_from_the_first_step_on(num_steps: int, num_selections: int) -> None:
    due = [step for step in range(num_steps) if selection_due(step, num_steps, num_selections)]
    assert due[0] == 0
    assert len(due) == min(num_steps, num_selections)
    gaps = [after - before for before, after in zip([*due, num_steps], [*due[1:], num_steps], strict=False)][:-1]
    assert not gaps or max(gaps) - min(gaps) <= 1
