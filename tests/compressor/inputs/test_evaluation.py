"""The images of --eval: none of them may be one that a stage has trained or chosen on."""

from __future__ import annotations

import json
from pathlib import Path

import tiny
import tiny_run
from PIL import Image

from compressor.inputs.evaluation import evaluation_set
from compressor.inputs.samples import Split, read_samples, split_samples


def test_images_that_are_in_both_sets_are_left_out(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    few = tmp_path / "few"
    samples = read_samples(few, tiny.card())
    split: Split = split_samples(samples, samples.labels, seed=0, select_fraction=0.1, evidence_fraction=0.2)
    (tmp_path / "split.json").write_text(json.dumps(split.to_dict(samples)))

    def evaluated(folder: Path) -> tuple[int, list[str]]:
        images, labels, warnings = evaluation_set(folder, tiny.card(), samples.images, tmp_path / "split.json")
        assert len(images) == len(labels)
        return len(images), warnings

    count, warnings = evaluated(few)
    assert count == 0
    assert warnings[-1].startswith(f"{tiny_run.NUM_FEW} images of --eval are also among the samples")

    for file in few.rglob("*.png"):  # the same pictures in other bytes
        copy = tmp_path / "again" / file.relative_to(few).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(copy)
    assert evaluated(tmp_path / "again")[0] == 0

    count, warnings = evaluated(tmp_path / "val")
    assert count == tiny_run.NUM_VAL
    assert not any("also among the samples" in warning for warning in warnings)
