"""model-card.md: what a run knows stands in it, what only the holder knows is asked for, and words are text."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from judged import every_outcome, hostile
from markdown_it import MarkdownIt
from markdown_it.token import Token

from compressor.report.measured import Calibration, Comparison, Proportion, Scores
from compressor.report.model_card import TO_FILL_IN, model_card
from compressor.report.recommend import Recommendation
from compressor.report.robustness_record import Robustness
from compressor.report.schema import ImageSet, Report

GOLDEN = Path(__file__).parent / "golden" / "model-card.md"


def split(card: str) -> tuple[dict[str, Any], list[Token]]:
    """The front matter and the tokens of what follows it."""
    _, front, body = card.split("---\n", 2)
    blocks = MarkdownIt("commonmark").enable("table").parse(body)
    return yaml.safe_load(front), [token for block in blocks for token in (block, *(block.children or ()))]


def headings(tokens: list[Token]) -> list[str]:
    return [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]


def test_golden(report: Report) -> None:
    card = model_card(report)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(card)
    assert card == GOLDEN.read_text(), "read the difference, then run this test with UPDATE_GOLDEN=1"


def test_it_has_the_parts_of_a_model_card_and_asks_for_what_it_cannot_know(report: Report) -> None:
    card = model_card(report)
    front, tokens = split(card)
    assert front["pipeline_tag"] == "image-classification"
    assert front["license"] == "unknown"
    assert headings(tokens)[1:] == [
        *("Model details", "Intended use", "What it must not be used for", "How to run it", "Training data"),
        *("Evaluation", "Robustness", "Limits and warnings", "Files", "Provenance"),
    ]
    assert card.count(TO_FILL_IN) == 5
    assert "TO FILL IN" in next(line for line in card.splitlines() if line.startswith("license:"))


@pytest.mark.parametrize(
    ("task", "tag"),
    [("segmentation", "image-segmentation"), ("regression", None), ("classification", "image-classification")],
)
def test_the_tag_is_one_that_the_hub_knows(task: str, tag: str | None, report: Report) -> None:
    front, _ = split(model_card(report.model_copy(update={"task": task})))
    assert front.get("pipeline_tag") == tag


def test_the_example_runs_the_recommended_onnx_file_and_never_an_engine(report: Report) -> None:
    assert 'InferenceSession("precision/student.fp16.onnx")' in model_card(report)
    for changes in ({"format": "engine"}, {"model": "teacher", "precision": "fp32"}):
        assert report.recommendation is not None
        other: Recommendation = report.recommendation.model_copy(update=changes)
        assert 'InferenceSession("onnx/student.onnx")' in model_card(
            report.model_copy(update={"recommendation": other})
        )


def test_numbers_have_their_intervals_and_the_rest_its_place(
    report: Report, build_report: Callable[..., Report], proportion: Callable[[int, int], Proportion]
) -> None:
    kept = dict.fromkeys(("agreement", "teacher_kept", "student_kept"), proportion(900, 1000))
    assert isinstance(report.comparison_evidence, Comparison)
    error = Calibration(error=0.04, n=40, num_bins=4, against="labels")
    full = build_report(
        gates=every_outcome(),
        robustness=(Robustness(corruption="jpeg", strength="quality 50", images="eval", **kept),),
        image_sets=(ImageSet(name="pool", num_images=1, sha256="f" * 64),),
        comparison_evidence=report.comparison_evidence.model_copy(update={"calibration_labels": error}),
    )
    card = model_card(full)
    assert "| student int8 | agreement with the teacher | 1,000 images of --eval | 97.0 % (95.7 to 97.9 %) |" in card
    assert "- 1 image: other images to train on, from a pool." in card
    assert "| jpeg, quality 50 | 90.0 % (88.0 to 91.7 %) |" in card
    assert "- Student fp32, expected calibration error against labels, 40 images: 4.0 %." in card
    assert "- Gate, missed: size.max: agreement is 97 %." in card
    assert "≈0.31 ms (0.23 to 0.39) predicted for Jetson Orin Nano Super, not measured." in card


def test_nothing_measured_is_said(report: Report) -> None:
    nothing = {"agreement": Scores(), "accuracy": Scores(), "latency_host": None, "latency_predicted": None}
    bare = report.model_copy(update={"variants": tuple(one.model_copy(update=nothing) for one in report.variants)})
    card = model_card(bare)
    assert "nothing says how good the student is" in card
    assert "- No latency was measured." in card
    assert "Nothing says how the student behaves on blurred" in card


def test_words_from_outside_are_text(report: Report) -> None:
    card = model_card(hostile(report))
    front, tokens = split(card)
    assert front["library_name"] == "onnx"
    assert {token.content for token in tokens if token.type.startswith("html")} == {"<code>", "</code>"}
    assert not any(token.type in ("link_open", "image") for token in tokens)
    assert "\x1b" not in card
    assert len(headings(tokens)) == 11


def test_a_thousand_classes_are_not_all_there(report: Report) -> None:
    names = tuple(f"class {index}" for index in range(1000))
    source = report.teacher_source.model_copy(update={"class_names": names})
    samples = report.samples.model_copy(update={"pseudo_labels": (1,) * 600 + (0,) * 400})
    card = model_card(report.model_copy(update={"teacher_source": source, "samples": samples}))
    assert "`class 99`, and 900 more." in card
    assert "`class 699`, and 300 more." in card
