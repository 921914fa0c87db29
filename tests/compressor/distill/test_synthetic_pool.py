"""Images that were made are kept as bytes, the last ones, and survive a kill."""

from __future__ import annotations

import torch

from compressor.distill.synthetic_pool import SyntheticPool

CPU = torch.device("cpu")


def grey(*values: int) -> torch.Tensor:
    """One 1x1 image a value, in [0, 1]."""
    return torch.tensor(values).float()[:, None, None, None] / 255.0


def contents(pool: SyntheticPool) -> list[int]:
    return pool.images[: len(pool)].flatten().tolist()


def test_images_come_back_as_they_were_to_half_a_level() -> None:
    pool = SyntheticPool(3, (1, 1, 1), CPU)
    pool.add(torch.tensor([0.0, 0.5, 1.0])[:, None, None, None])
    assert contents(pool) == [0, 128, 255]
    drawn = pool.draw(200, torch.Generator().manual_seed(0)).flatten()
    assert sorted(set(drawn.tolist())) == (torch.tensor([0.0, 128.0, 255.0]) / 255.0).tolist()


def test_only_what_was_added_is_drawn() -> None:
    pool = SyntheticPool(1000, (1, 1, 1), CPU)
    pool.add(grey(7, 9))
    assert len(pool) == 2
    assert pool.draw(100, torch.Generator().manual_seed(0)).mul(255).round().unique().tolist() == [7.0, 9.0]


def test_when_there_is_no_more_room_the_oldest_go() -> None:
    pool = SyntheticPool(4, (1, 1, 1), CPU)
    for batch in ((1, 2, 3), (4, 5, 6)):
        pool.add(grey(*batch))
    assert sorted(contents(pool)) == [3, 4, 5, 6]
    pool.add(grey(*range(10, 20)))
    assert sorted(contents(pool)) == [16, 17, 18, 19]


def test_the_state_holds_no_more_than_what_was_added_and_goes_on_alike() -> None:
    pool, other = SyntheticPool(4, (1, 1, 1), CPU), SyntheticPool(4, (1, 1, 1), CPU)
    pool.add(grey(1, 2, 3))
    assert pool.state_dict()["images"].shape == (3, 1, 1, 1)
    other.load_state_dict(pool.state_dict())
    for each in (pool, other):
        each.add(grey(4, 5))
    assert contents(pool) == contents(other) == [5, 2, 3, 4]


def test_images_are_kept_without_their_graph() -> None:
    pool = SyntheticPool(2, (1, 1, 1), CPU)
    pool.add(grey(1, 2).requires_grad_())
    assert not pool.images.requires_grad
