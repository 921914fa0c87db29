"""report.md against its golden file and under hostile, huge and scanty reports."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from compressor.report.markdown import report_markdown
from compressor.report.measured import ClassFlips, Comparison, Scores
from compressor.report.predicted import Prediction
from compressor.report.schema import Report, SkippedFile, TrainingMemory
from compressor.report.shipping import Int8Calibration
from compressor.report.student_search import Candidate, StudentSearch
from compressor.report.summary import summarise

GOLDEN = Path(__file__).parent / "golden" / "report.md"
GITHUB_COMMENT_LIMIT = 65_536


def parsed(markdown: str) -> list[Token]:
    blocks = MarkdownIt("commonmark").enable("table").parse(markdown)
    return [token for block in blocks for token in (block, *(block.children or ()))]


def test_golden(report: Report) -> None:
    markdown = report_markdown(report)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(markdown)
    assert markdown == GOLDEN.read_text(), "read the difference, then run this test with UPDATE_GOLDEN=1"


def test_the_targets_column_is_empty_and_says_why(report: Report) -> None:
    markdown = report_markdown(report)
    assert "| student | 0.148 / 0.163 / 0.207 | – |" in markdown
    assert "target, p50 ms" not in markdown
    assert f"\n- {report.target.reason}\n" in markdown


def test_every_table_is_a_table_and_every_picture_a_picture(report: Report) -> None:
    tokens = parsed(report_markdown(report))
    assert sum(token.type == "table_open" for token in tokens) == 7
    sources = [token.attrs["src"] for token in tokens if token.type == "image"]
    assert sources == ["student/candidates.png", "distill/training%20curves.png", "samples/contact_sheet.png"]


def test_the_peak_memory_says_where_the_images_were(report: Report, build_report: Callable[..., Report]) -> None:
    def told(**changes: Any) -> str:
        memory = TrainingMemory(**{"host_peak_mib": 812.5, "images_mib": 300.0, "images_held": "file", **changes})
        making = report.distillation.model_copy(update={"memory": memory})
        lines = report_markdown(build_report(distillation=making)).splitlines()
        return next(line for line in lines if line.startswith("- Peak memory of the training, measured: "))

    assert told().endswith(": 812 MiB resident on the host; 300 MiB of images were read batch by batch.")
    assert told(device_peak_mib=2048.0, images_held="device").endswith(
        ": 812 MiB resident on the host, 2,050 MiB on the GPU; 300 MiB of images were copied there once."
    )
    assert told(images_mib=0.0).endswith(": 812 MiB resident on the host.")


def test_a_hostile_teacher_of_a_thousand_classes(report: Report, build_report: Callable[..., Report]) -> None:
    names = tuple(f"<img src=x onerror=alert({i})> | `x` | @everyone\x1b[31m" + "A" * 5000 for i in range(1000))
    assert report.comparison_evidence is not None
    flips = tuple(ClassFlips(class_index=i, num_images=3, num_flipped=2) for i in range(1000))
    hostile = build_report(
        run_name="</h1><script>alert(1)</script>",
        teacher_source=report.teacher_source.model_copy(update={"class_names": names, "file": names[0]}),
        comparison_evidence=Comparison(**{**dict(report.comparison_evidence), "flips": flips}),
        samples=report.samples.model_copy(
            update={
                "pseudo_labels": (1,) * 1000,
                "skipped": tuple(SkippedFile(file=name, reason=f"{name} is no image.") for name in names),
            }
        ),
        warnings=tuple(f"Class {name} has no image." for name in names),
    )
    markdown = report_markdown(hostile)
    assert len(markdown) < GITHUB_COMMENT_LIMIT
    assert "\x1b" not in markdown
    assert "@everyone" not in markdown
    html = {token.content for token in parsed(markdown) if token.type.startswith("html")}
    assert html == {"<code>", "</code>"}
    assert "and 985 more in report.json" in markdown


def test_a_report_of_nothing_but_markup_ends_in_time_and_with_whole_parts(
    report: Report, build_report: Callable[..., Report]
) -> None:
    """Each of these characters becomes five; a thousand such sentences stand in every list that has no end."""
    words = tuple("[`" * 5_000 + str(index) for index in range(1_000))
    making = report.distillation.model_copy(update={"departures": words[:20]})
    longest = build_report(
        summary=report.summary.model_copy(update={"points": words[:40]}),
        warnings=words,
        variant_notes=words,
        distillation=making,
        command="compress run " + "`" * 80_000,
    )
    markdown = report_markdown(longest)
    assert GITHUB_COMMENT_LIMIT / 4 < len(markdown) < GITHUB_COMMENT_LIMIT
    assert len(markdown.encode()) < 2**20
    assert "Left out for its length: " in markdown.splitlines()[-1]
    assert markdown.startswith(f"# Compression report: `{report.run_name}`\n")
    tokens = parsed(markdown)
    tables = [token.map for token in tokens if token.type == "table_open"]
    assert len(tables) >= 3
    assert "## Artefacts" in markdown  # what comes after a part that does not fit still stands
    assert not any(token.type == "fence" for token in tokens)
    assert "Left out for its length" not in report_markdown(report)


def test_the_recommended_artefact_is_marked_and_stands_first(report: Report) -> None:
    markdown = report_markdown(report)
    assert report.recommendation is not None
    assert f"\n\n- {report.recommendation.reason}\n" in markdown
    assert markdown.count("**student fp16**") == 1
    assert "- student int8, layers that stayed float: `/stem/Conv`." in markdown
    assert "Device kit `kit/kit.tar.gz`: 2 files" in markdown


def test_names_from_a_foreign_onnx_file_are_text(
    report: Report, build_report: Callable[..., Report], calibration: Callable[..., Int8Calibration]
) -> None:
    layers = tuple(f"<script>{i}</script>|`@everyone`" + "A" * 500 for i in range(300))
    note = "[a](http://b) <b>| @all"
    hostile = build_report(
        int8=(calibration(float_layers=layers, judged_on=note, generator_note=note),),
        variants=tuple(one.model_copy(update={"note": note, "made_for": note}) for one in report.variants),
        variant_notes=(note,),
    )
    markdown = report_markdown(hostile)
    assert len(markdown) < GITHUB_COMMENT_LIMIT
    assert {token.content for token in parsed(markdown) if token.type.startswith("html")} == {"<code>", "</code>"}
    assert not any(token.type == "link_open" for token in parsed(markdown))
    assert "@all" not in markdown
    assert "and 285 more in report.json" in markdown


def test_words_from_the_search_are_text(
    report: Report,
    build_report: Callable[..., Report],
    student_search: Callable[..., StudentSearch],
    candidate: Callable[..., Candidate],
    prediction: Callable[..., Prediction],
) -> None:
    words = "[a](http://b) <b>| @all `x`"
    rows = tuple(candidate(words, "other", 0.5, None, words) for _ in range(40))
    chosen = candidate("prune:0.5", "pruned", 0.5, 0.3)
    search = student_search(candidates=(chosen, *rows), reason=words, notes=(words,) * 40)
    doubtful = prediction(1.0, anchors=(words,), doubts=(words,) * 3)
    hostile = build_report(
        student_search=search,
        variants=tuple(one.model_copy(update={"latency_predicted": doubtful}) for one in report.variants),
        verdicts=tuple(one.model_copy(update={"sentence": words}) for one in report.verdicts),
    )
    markdown = report_markdown(hostile)
    assert len(markdown) < GITHUB_COMMENT_LIMIT
    assert {token.content for token in parsed(markdown) if token.type.startswith("html")} == {"<code>", "</code>"}
    assert not any(token.type == "link_open" for token in parsed(markdown))
    assert "@all" not in markdown


def test_limits_stand_before_everything_else_and_the_student_has_its_reason(report: Report) -> None:
    markdown = report_markdown(report)
    head, limits, *_ = markdown.split("\n## ")
    assert "**Not every limit is known to hold.**" in head
    assert [line.split(":")[0] for line in limits.splitlines() if line.startswith("- ")] == [
        "- **unproven**",
        "- **held**",
    ]
    assert report.student_search is not None
    assert f"## The student\n\n{report.student_search.reason}\n\n| student |" in markdown


def test_what_passed_is_named(report: Report, build_report: Callable[..., Report]) -> None:
    def headline(*changes: dict[str, str]) -> str:
        verdicts = tuple(one.model_copy(update=change) for one, change in zip(report.verdicts, changes, strict=True))
        summary = summarise(report.teacher, report.student, report.target, report.recommendation, verdicts)
        return report_markdown(build_report(verdicts=verdicts, summary=summary)).splitlines()[2].split("**")[1]

    held = {"state": "held"}
    assert headline(held, held) == "The limit on latency holds."
    assert headline(held, held | {"set_by": "user"}) == "The limits on latency and size hold."
    assert headline({"set_by": "target"}, held) == "No limit was asked for."
    assert headline({"state": "missed"}, held) == "A limit is not held."


def test_a_report_without_evidence_says_so(report: Report, build_report: Callable[..., Report]) -> None:
    nothing = {"agreement": Scores(), "accuracy": Scores(), "latency_host": None}
    student, teacher = report.student.model_copy(update=nothing), report.teacher.model_copy(update=nothing)
    scanty = build_report(
        student=student,
        teacher=teacher,
        summary=summarise(teacher, student, report.target),
        comparison_evidence=None,
        warnings=(),
        pictures=(),
        variants=(),
        int8=(),
        student_search=None,
        verdicts=(),
    )
    markdown = report_markdown(scanty)
    assert "no held-out image says how good it is" in markdown
    assert "agreement" not in markdown
    assert "## Warnings" not in markdown
    assert "## Pictures" not in markdown
    assert "## Limits" not in markdown
    assert "## The student" not in markdown
    assert "| student | – | – |" in markdown
    assert "None" not in markdown
