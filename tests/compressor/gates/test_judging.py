"""Every outcome of a gate, with its sentence and the decision and exit code that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compressor.gates.gate import Gate, read_gates
from compressor.gates.judging import decide, judge
from compressor.report.gate_record import GateResult
from compressor.report.intervals import images_needed, wilson_interval
from compressor.report.measured import Difference, Differences, Proportion, Scores
from compressor.report.predicted import Prediction
from compressor.report.schema import ImageSet, Report
from compressor.report.shipping import Variant
from profiles.latency import LatencyStats

SHAS = {"evidence": "1" * 64, "eval": "2" * 64}
DIFFERENCE = Difference(value=-0.012, low=-0.02, high=-0.004, n=1000, gained=2, lost=14, p_value=0.004)


@pytest.fixture
def judged_report(build_report: Callable[..., Report], proportion: Callable[[int, int], Proportion]) -> Report:
    """What ships is the student's fp16: 974 of 1,000 agree, accuracy 96.8 % against the teacher's 98.0 %."""
    report = build_report(
        image_sets=tuple(ImageSet(name=name, num_images=40, sha256=sha) for name, sha in SHAS.items())
    )
    variants = tuple(
        variant.model_copy(
            update={
                "accuracy": Scores(evidence=proportion(37, 40), eval=proportion(968, 1000)),
                "accuracy_difference": Differences(eval=DIFFERENCE),
            }
        )
        for variant in report.variants
    )
    return report.model_copy(update={"variants": variants})


def gates(*flags: str) -> tuple[Gate, ...]:
    return read_gates(None, flags)


def only(report: Report, flag: str, **more: Any) -> GateResult:
    (result,) = judge(report, gates(flag), **more)
    return result


CASES = [
    # (gate, state, outcome, what the sentence says)
    ("agreement:min=96%", "held", "pass", "worse end, 96.2 %, is at or above the minimum of 96 %"),
    ("agreement:min=99%", "missed", "fail", "(96.2 to 98.2 %) of 1,000 --eval images; its worse end, 96.2 %, is below"),
    ("agreement:min=97%", "missed", "fail", "the value would hold, but the interval's worse end, 96.2 %, is below"),
    ("agreement:min=97%,judge=value", "held", "pass", "97.4 % (96.2 to 98.2 %) of 1,000 --eval images, at or above"),
    ("agreement:min=97%,severity=warn", "missed", "warn", "below the minimum of 97 %"),
    ("agreement:min=90%,images=evidence", "missed", "fail", "of 40 held-out images"),
    ("agreement:min=90%,min_samples=2000", "too_few", "fail", "asks for 2,000: 1,000 more images would do"),
    ("agreement:max_drop=4points", "held", "pass", "2.60 points lost, at most 3.78 points lost by its"),
    ("agreement:max_drop=3points", "missed", "fail", "would hold; by its interval it may be 3.78 points, above"),
    ("accuracy:max_drop=2points", "held", "pass", "against the teacher's 98.0 %: 1.20 points lost, at most 2.00"),
    ("accuracy:max_drop=1point", "missed", "fail", "at most 2.00 points lost by its interval, above the 1 point"),
    ("accuracy:max_drop_relative=3%", "held", "pass", "1.22 % lost"),
    ("mean_iou:min=50%", "missing", "fail", "its mean IoU with the teacher is not known"),
    ("agreement:min=50%,artefact=student int4", "missing", "fail", "no artefact 'student int4'; made were"),
    ("latency_p50_ms:max=5", "unproven", "warn", "≈0.31 ms (0.23 to 0.39 ms)"),
    ("latency_p50_ms:max=0.1", "unproven", "warn", "above the limit of 0.1 ms. It is only predicted."),
    ("latency_p99_ms:max=5", "missing", "fail", "p99 latency on the target is not known"),
    ("host_latency_p50_ms:max=0.2", "held", "pass", "within the limit of 0.2 ms"),
    ("host_latency_p50_ms:max=0.15", "missed", "fail", "above the limit of 0.15 ms"),
    ("size_mib:max=0.15", "held", "pass", "its size is 0.150 MiB, within the limit of 0.15 MiB"),
    ("size_mib:max=0.1,artefact=student int8", "held", "pass", "Student int8: its size is 0.0900 MiB"),
    ("params_m:max=0.0712", "missed", "fail", "0.0713 M, above the limit of 0.0712 M"),
    ("params_m:max_drop_relative=0%", "held", "pass", "against the teacher's 0.272 M: 73.8 % less"),
    ("mean_kl_nats:max=0.05", "held", "pass", "0.0312 nats on 40 held-out images, within the limit of 0.05 nats"),
    ("worst_class_agreement:min=60%", "missed", "fail", "Student fp32: its agreement with the teacher in the class"),
    ("robust_agreement:min=60%", "missing", "fail", "is not known"),
    ("mean_kl_nats:max=1,artefact=student int8", "missing", "fail", "is known of student fp32 alone"),
    ("agreement:max_regression=1point", "missing", "fail", "no --baseline was given to compare with"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "state", "outcome", "words"), CASES)
def test_a_gate(judged_report: Report, flag: str, state: str, outcome: str, words: str) -> None:
    result = only(judged_report, flag)
    assert (result.state, result.outcome) == (state, outcome), result.sentence
    assert words in result.sentence


def test_a_prediction_fails_where_a_measurement_is_required(judged_report: Report) -> None:
    result = only(judged_report, "latency_p50_ms:max=5", require_measured=True)
    assert (result.state, result.outcome, result.origin) == ("unproven", "fail", "predicted")
    mild = only(judged_report, "latency_p50_ms:max=5,severity=warn", require_measured=True)
    assert mild.outcome == "warn"


def test_what_a_board_sent_back_is_judged(
    judged_report: Report, variant: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    merged = latency(4.0, origin="merged", is_target=True, latency_p50_interval_ms=(3.8, 4.2))
    report = judged_report.model_copy(update={"variants": (variant("student", "fp16", latency_target=merged),)})
    assert only(report, "latency_p50_ms:max=4.3").state == "held"
    straddling = only(report, "latency_p50_ms:max=4.1")
    assert (straddling.state, straddling.origin) == ("missed", "merged")
    assert "the value would hold, but the interval's worse end, 4.20 ms" in straddling.sentence
    assert only(report, "latency_p99_ms:max=5.7").state == "held"


# --- more images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "limit"), [(0.974, 0.97), (0.5, 0.4), (1.0, 0.99), (0.9, 0.8999)])
def test_the_images_that_are_said_to_be_enough_are_the_fewest(share: float, limit: float) -> None:
    needed = images_needed(share, limit, side="low")
    assert needed is not None
    assert wilson_interval(share * needed, needed)[0] >= limit
    assert wilson_interval(share * (needed - 1), needed - 1)[0] < limit
    assert needed == images_needed(1 - share, 1 - limit, side="high")


@pytest.mark.parametrize(("share", "limit"), [(0.97, 0.97), (0.9, 0.97), (0.5, 0.6)])
def test_no_number_of_images_shows_what_is_not_so(share: float, limit: float) -> None:
    assert images_needed(share, limit, side="low") is None


def test_a_gate_says_how_many_more_images_would_narrow_the_interval(judged_report: Report) -> None:
    result = only(judged_report, "agreement:min=97%")
    needed = images_needed(0.974, 0.97, side="low")
    assert needed is not None
    assert result.more_images == needed - 1000
    assert f"About {needed - 1000:,} more images would narrow it enough" in result.sentence
    assert only(judged_report, "agreement:min=99%").more_images is None


# --- the baseline -----------------------------------------------------------------------------------------------------


def earlier(report: Report, agree: int, proportion: Callable[[int, int], Proportion], **changes: Any) -> Report:
    variants = tuple(
        variant.model_copy(update={"agreement": Scores(eval=proportion(agree, 1000))}) for variant in report.variants
    )
    return report.model_copy(update={"variants": variants, **changes})


def test_an_equal_baseline_never_fails(judged_report: Report) -> None:
    for metric, unit in (("agreement", "points"), ("accuracy", "points"), ("size_mib", ""), ("params_m", "")):
        result = only(judged_report, f"{metric}:max_regression=0{unit}", baseline=judged_report)
        assert (result.state, result.change) == ("held", 0.0), result.sentence


def test_a_regression_is_judged_by_its_value(
    judged_report: Report, proportion: Callable[[int, int], Proportion]
) -> None:
    baseline = earlier(judged_report, 984, proportion)
    held = only(judged_report, "agreement:max_regression=1point", baseline=baseline)
    assert (held.state, held.reference) == ("held", 0.984)
    assert "against the baseline's 98.4 %: 1.00 point lost" in held.sentence.replace("1 point lost", "1.00 points lost")
    assert only(judged_report, "agreement:max_regression=0.9points", baseline=baseline).outcome == "fail"
    strict = only(judged_report, "agreement:max_regression=1point,judge=interval", baseline=baseline)
    assert (strict.state, strict.outcome) == ("missed", "fail")
    better = only(judged_report, "agreement:max_regression=0points", baseline=earlier(judged_report, 960, proportion))
    assert (better.state, better.outcome) == ("held", "pass")
    assert "1.40 points gained" in better.sentence


@pytest.mark.parametrize(
    ("changes", "gate", "words"),
    [
        ({"task": "segmentation"}, "agreement:max_regression=1point", "of another task or of other classes"),
        ({"image_sets": ()}, "agreement:max_regression=1point", "on other images, or does not say on which"),
        (
            {"image_sets": (ImageSet(name="eval", num_images=40, sha256="9" * 64),)},
            "agreement:max_regression=1point",
            "on other images",
        ),
        ({"variants": ()}, "size_mib:max_regression_relative=5%", "the baseline does not have this number"),
    ],
)
def test_a_stale_baseline_fails(judged_report: Report, changes: dict[str, Any], gate: str, words: str) -> None:
    result = only(judged_report, gate, baseline=judged_report.model_copy(update=changes))
    assert (result.state, result.outcome) == ("stale", "fail")
    assert words in result.sentence


def test_another_device_is_no_baseline_of_a_latency(
    judged_report: Report, variant: Callable[..., Variant], prediction: Callable[..., Prediction]
) -> None:
    other = variant("student", "fp16", latency_predicted=prediction(0.2, device="Jetson AGX Orin"))
    baseline = judged_report.model_copy(update={"variants": (other,)})
    result = only(judged_report, "latency_p50_ms:max_regression=1ms", baseline=baseline)
    assert result.state == "stale"
    assert "the baseline's is of Jetson AGX Orin, batch 1, this one of Jetson Orin Nano Super" in result.sentence


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "decision"),
    [
        ((), "warn"),  # its limit on latency is unproven
        (("agreement:min=96%",), "warn"),
        (("agreement:min=96%", "agreement:min=99%"), "fail"),
        (("agreement:min=99%,severity=warn",), "warn"),
    ],
)
def test_the_worst_of_limits_and_gates_decides(judged_report: Report, flags: tuple[str, ...], decision: str) -> None:
    assert decide(judged_report, judge(judged_report, gates(*flags))) == decision


def test_without_limits_the_gates_alone_decide(judged_report: Report) -> None:
    report = judged_report.model_copy(update={"verdicts": ()})
    assert decide(report, ()) == "ungated"
    assert decide(report, judge(report, gates("agreement:min=96%"))) == "pass"


def test_another_teacher_is_no_baseline_of_what_compares_with_it(judged_report: Report) -> None:
    source = judged_report.teacher_source.model_copy(update={"sha256": "7" * 64})
    baseline = judged_report.model_copy(update={"teacher_source": source})
    assert only(judged_report, "agreement:max_regression=1point", baseline=baseline).state == "stale"
    assert only(judged_report, "accuracy:max_regression=1point", baseline=baseline).state == "held"


def test_a_number_never_reads_like_the_limit_that_it_misses(judged_report: Report) -> None:
    variants = tuple(one.model_copy(update={"size_mib": 0.12275}) for one in judged_report.variants)
    result = only(judged_report.model_copy(update={"variants": variants}), "size_mib:min=0.123")
    assert "its size is 0.1227 MiB, below the minimum of 0.123 MiB" in result.sentence


def test_an_unstable_latency_says_so(judged_report: Report) -> None:
    assert ", unstable" in only(judged_report, "host_latency_p50_ms:max=1,artefact=student int8").sentence


def test_what_may_be_lost_of_agreement_says_how_many_images_would_show_it(judged_report: Report) -> None:
    lost, least = (only(judged_report, f"agreement:{limit}") for limit in ("max_drop=3points", "min=97%"))
    assert lost.more_images == least.more_images is not None
