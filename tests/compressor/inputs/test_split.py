"""The split: disjoint, exhaustive, repeatable, stratified, and blind to names and order."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.inputs.samples import SampleSet, Split, split_samples


def sample_set(count: int) -> SampleSet:
    return SampleSet(
        images=torch.zeros(count, 1, 4, 4, dtype=torch.uint8),
        labels=torch.full((count,), -1),
        files=tuple(f"{index}.png" for index in range(count)),
        sha256=tuple(hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)),
        skipped=(),
        warnings=(),
    )


def shuffled(samples: SampleSet, order: Tensor) -> SampleSet:
    digests = tuple(samples.sha256[index] for index in order)
    return SampleSet(samples.images, samples.labels, samples.files[::-1], digests, (), ())


def divide(samples: SampleSet, groups: Tensor, seed: int = 0, select: float = 0.1, evidence: float = 0.2) -> Split:
    return split_samples(samples, groups, seed=seed, select_fraction=select, evidence_fraction=evidence)


CASES = [
    (count, groups, seed) for count in (2, 3, 10, 50, 99, 100, 137, 500) for groups in (1, 3, 10, 60) for seed in (0, 1)
]


@pytest.mark.parametrize(("count", "num_groups", "seed"), CASES)
def test_every_image_is_in_one_part_and_every_group_in_proportion(count: int, num_groups: int, seed: int) -> None:
    groups = torch.from_numpy(np.random.default_rng(seed).zipf(1.5, count) % num_groups)
    split = divide(sample_set(count), groups, seed)
    parts = (split.train, split.select, split.evidence)
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert all(part.dtype == torch.int64 and part.tolist() == sorted(part.tolist()) for part in parts)

    assert len(split.evidence) == max(1, round(count * 0.2))
    assert len(split.select) == (round(count * 0.1) if count >= 100 else 0)
    sizes = torch.bincount(groups, minlength=num_groups).double()
    after_evidence = sizes - torch.bincount(groups[split.evidence], minlength=num_groups)
    for part, whole in ((split.evidence, sizes), (split.select, after_evidence)):
        taken = torch.bincount(groups[part], minlength=num_groups)
        assert (taken - whole * len(part) / whole.sum()).abs().max() < 1


def test_equal_groups_give_equally() -> None:
    groups = torch.arange(50) % 10
    split = divide(sample_set(50), groups)
    assert torch.bincount(groups[split.evidence]).tolist() == [1] * 10


def test_the_split_is_repeatable_and_follows_the_seed() -> None:
    samples, groups = sample_set(100), torch.arange(100) % 7
    assert divide(samples, groups).evidence.tolist() == divide(samples, groups).evidence.tolist()
    assert divide(samples, groups).evidence.tolist() != divide(samples, groups, seed=1).evidence.tolist()


@pytest.mark.parametrize("count", [10, 150])
def test_names_order_and_group_numbers_change_nothing(count: int) -> None:
    samples, groups = sample_set(count), torch.arange(count) % 4
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    other, renumbered = shuffled(samples, order), (7 - groups)[order]
    before, after = divide(samples, groups), divide(other, renumbered)
    for part in ("train", "select", "evidence"):
        digests = {samples.sha256[index] for index in getattr(before, part)}
        assert {other.sha256[index] for index in getattr(after, part)} == digests


def test_train_keeps_one_image_whatever_is_asked() -> None:
    for count in (2, 3, 100):
        split = divide(sample_set(count), torch.zeros(count, dtype=torch.long), select=0.9, evidence=0.9)
        assert len(split.train) >= 1
        assert len(split.evidence) >= 1


def test_two_images_are_one_to_learn_from_and_one_as_evidence() -> None:
    split = divide(sample_set(2), torch.tensor([0, 1]))
    assert (len(split.train), len(split.select), len(split.evidence)) == (1, 0, 1)


def test_the_record_holds_every_file_once() -> None:
    samples = sample_set(120)
    split = divide(samples, torch.arange(120) % 3)
    records = split.to_dict(samples)["files"]
    assert [record["file"] for record in records] == list(samples.files)
    assert [record["sha256"] for record in records] == list(samples.sha256)
    for name, part in (("train", split.train), ("select", split.select), ("evidence", split.evidence)):
        assert [index for index, record in enumerate(records) if record["part"] == name] == part.tolist()
