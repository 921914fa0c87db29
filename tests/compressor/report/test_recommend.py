"""What is recommended follows from limits and measurements, and says so in words with their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compressor.report.limits import Limits, ParamsM
from compressor.report.measured import Proportion, Scores
from compressor.report.predicted import Prediction
from compressor.report.recommend import recommend
from compressor.report.shipping import Int8Calibration, Recommendation, Variant
from profiles.catalogue import load_target
from profiles.latency import LatencyStats

JETSON, CPU = load_target("jetson-orin-nano-super"), load_target("cpu")
RASPBERRY = CPU.model_copy(update={"this_host": False, "title": "Raspberry Pi 5"})

Maker = Callable[..., Variant]


@pytest.fixture
def measured(variant: Maker, latency: Callable[..., LatencyStats]) -> Maker:
    """A variant with p50 in ms on the target, whose median is known to one part in a thousand."""

    def make(model: str, precision: str, p50_ms: float, **changes: Any) -> Variant:
        interval = (0.9995 * p50_ms, 1.0005 * p50_ms)
        found = latency(p50_ms, is_target=True, latency_p50_interval_ms=interval)
        return variant(model, precision, latency_target=found, **changes)

    return make


def chosen(found: Recommendation | None) -> str:
    assert found is not None
    return f"{found.model} {found.precision}"


def test_nothing_made_nothing_recommended(variant: Maker) -> None:
    assert recommend((), (), Limits(), CPU) is None
    assert recommend([variant("student", "fp32", path=None, note="skipped")], (), Limits(), CPU) is None


def test_the_fastest_on_the_target_is_taken_and_the_reason_has_the_numbers(measured: Maker) -> None:
    rows = [measured("student", "fp32", 0.31), measured("student", "fp16", 0.1), measured("student", "int8", 0.109)]
    found = recommend(rows, (), Limits(), CPU)
    assert found is not None
    assert (found.model, found.format, found.precision) == ("student", "onnx", "fp16")
    assert found.path == "precision/student.fp16.onnx"
    assert found.reason == (
        "Student fp16 is recommended: 0.100 ms on this host, where fp32 takes 3.10 times as long and int8 is "
        "9 % slower. It agrees with fp32 on 100 % (99.6 to 100 %) of 1,000 images."
    )
    assert [(one.variant, one.reason) for one in found.rejected] == [
        ("student fp32", "takes 3.10 times as long"),
        ("student int8", "is 9 % slower"),
    ]
    assert found.teacher_suffices is None


@pytest.mark.parametrize(("int8_ms", "precision"), [(0.098, "fp32"), (0.0975, "fp32"), (0.0965, "int8")])
def test_below_three_per_cent_the_higher_precision_wins(measured: Maker, int8_ms: float, precision: str) -> None:
    found = recommend([measured("student", "int8", int8_ms), measured("student", "fp32", 0.1)], (), Limits(), CPU)
    assert chosen(found) == f"student {precision}"


def test_medians_that_cannot_be_told_apart_are_a_tie(variant: Maker, latency: Callable[..., LatencyStats]) -> None:
    shaky = latency(0.09, is_target=True, latency_p50_interval_ms=(0.07, 0.2))
    steady = latency(0.1, is_target=True)
    rows = [variant("student", "int8", latency_target=shaky), variant("student", "fp32", latency_target=steady)]
    found = recommend(rows, (), Limits(), CPU)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert "int8 is not clearly faster (0.0900 ms)" in found.reason


def test_a_gpus_own_time_is_not_compared_with_a_wall_clock(
    variant: Maker, latency: Callable[..., LatencyStats]
) -> None:
    board = {"is_target": True, "origin": "merged", "latency_p50_interval_ms": None}
    slow, fast = latency(0.3, what="gpu compute", **board), latency(0.2, what="gpu compute", **board)
    rows = [
        variant("student", "fp32", latency_target=slow),
        variant("student", "fp16", latency_target=fast),
        variant("student", "int8", latency_target=latency(0.1, **board)),
    ]
    found = recommend(rows, (), Limits(), JETSON)
    assert chosen(found) == "student fp16"
    assert found is not None
    assert "int8 was measured in another way (wall clock, 0.100 ms)" in found.reason


def test_the_hosts_latency_says_nothing_of_another_target(variant: Maker, latency: Callable[..., LatencyStats]) -> None:
    rows = [
        variant("student", "fp32", latency_host=latency(0.3)),
        variant("student", "fp16", latency_host=latency(0.4)),
        variant("student", "int8", latency_host=latency(0.1)),
    ]
    found = recommend(rows, (), Limits(), JETSON)
    assert chosen(found) == "student fp16"
    assert found is not None
    assert "nothing was measured on NVIDIA Jetson Orin Nano Super 8 GB" in found.reason
    assert "0.1" not in found.reason
    assert dict((one.variant, one.reason) for one in found.rejected)["student int8"] == "was not measured to be faster"


def test_unmeasured_fp16_needs_images_on_which_it_loses_nothing(
    variant: Maker, proportion: Callable[[int, int], Proportion]
) -> None:
    single = variant("student", "fp32", agreement=Scores(evidence=proportion(38, 40)))

    def half(same: Proportion | None, with_teacher: Proportion | None) -> Variant:
        return variant(
            "student",
            "fp16",
            agreement_with_fp32=Scores(evidence=same),
            agreement=Scores(evidence=with_teacher),
        )

    everything, most = proportion(40, 40), proportion(39, 40)
    assert chosen(recommend([single, half(everything, None)], (), Limits(), JETSON)) == "student fp16"
    # One image moved, and the teacher's opinion of all of them together is as good.
    assert chosen(recommend([single, half(most, proportion(39, 40))], (), Limits(), JETSON)) == "student fp16"
    assert chosen(recommend([single, half(most, proportion(25, 40))], (), Limits(), JETSON)) == "student fp32"
    found = recommend([single, half(None, None)], (), Limits(), JETSON)
    assert found is not None
    assert found.reason == (
        "Student fp32 is recommended, since nothing was measured on NVIDIA Jetson Orin Nano Super 8 GB and no image "
        "says what fp16 costs."
    )


def test_unmeasured_onnx_runtime_gets_fp32(variant: Maker) -> None:
    rows = [variant("student", precision) for precision in ("fp32", "fp16", "int8")]
    found = recommend(rows, (), Limits(max_latency_ms=5), RASPBERRY)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert found.reason.endswith(
        "nothing was measured on Raspberry Pi 5 and a lower precision is not faster on every device. "
        "The limit of 5 ms could not be checked."
    )


def test_an_artefact_above_a_limit_is_out_and_says_which(measured: Maker) -> None:
    rows = [
        measured("student", "fp32", 0.3, size_mib=20.0),
        measured("student", "fp16", 0.2, size_mib=10.0),
        measured("student", "int8", 0.25, size_mib=5.0),
    ]
    found = recommend(rows, (), Limits(max_latency_ms=0.26, max_size_mib=8.0), CPU)
    assert chosen(found) == "student int8"
    assert found is not None
    reasons = {one.variant: one.reason for one in found.rejected}
    assert reasons["student fp16"] == "is 10.0 MiB, above the limit of 8 MiB"
    assert "fp16 is 10.0 MiB, above the limit" in found.reason
    nothing = recommend(rows, (), Limits(max_latency_ms=0.1), CPU)
    assert nothing is not None
    assert (nothing.model, nothing.path) == (None, None)
    assert nothing.reason == "No artefact holds the limits."
    assert nothing.rejected[0].reason == "takes 0.300 ms on this host, above the limit of 0.1 ms"


def test_a_drop_on_the_images_to_choose_on_excludes_int8(
    measured: Maker, calibration: Callable[..., Int8Calibration]
) -> None:
    rows = [measured("student", "fp32", 0.3), measured("student", "int8", 0.1)]
    lossy = calibration(drop_points=2.3, limit_held=False)
    found = recommend(rows, [lossy], Limits(max_drop=1), CPU)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert (
        found.rejected[0].reason
        == "loses 2.3 points against fp32 on the images to choose on, more than the 1 point allowed"
    )
    assert chosen(recommend(rows, [lossy], Limits(max_drop=3), CPU)) == "student int8"
    assert chosen(recommend(rows, [calibration(model="teacher", drop_points=9)], Limits(), CPU)) == "student int8"


@pytest.mark.parametrize(
    ("same", "n", "holds"),
    [
        (39, 40, True),  # one image of forty, 2.5 points, refutes nothing: the interval reaches 99.6 %
        (33, 40, False),  # the whole interval lies below
        (296, 300, False),  # with three hundred the value decides
        (297, 300, True),
        (99, 100, True),  # exactly one point
    ],
)
def test_evidence_refutes_only_what_it_can(
    measured: Maker, proportion: Callable[[int, int], Proportion], same: int, n: int, holds: bool
) -> None:
    scores = Scores(evidence=proportion(same, n))
    rows = [measured("student", "fp32", 0.3), measured("student", "int8", 0.1, agreement_with_fp32=scores)]
    found = recommend(rows, (), Limits(max_drop=1), CPU)
    assert chosen(found) == ("student int8" if holds else "student fp32")
    assert found is not None
    assert ("too few to prove the limit of 1 point" in found.reason) == (holds and n < 300)


def test_a_teacher_within_the_users_limits_is_said_first(measured: Maker) -> None:
    rows = [
        measured("student", "fp32", 0.1, size_mib=4.0),
        measured("teacher", "fp32", 0.9, size_mib=16.0),
        measured("teacher", "fp16", 0.4, size_mib=8.0),
    ]
    found = recommend(rows, (), Limits(max_latency_ms=0.5, max_size_mib=10.0), CPU)
    assert found is not None
    assert found.teacher_suffices == (
        "The teacher holds the limits without any distillation: teacher fp16 takes 0.400 of 0.5 ms on this host and "
        "is 8.00 of 10 MiB."
    )
    assert chosen(found) == "student fp32"
    assert found.reason.startswith("Student fp32 is recommended: 0.100 ms on this host.")
    wished = Limits(max_latency_ms=0.5, wishes=("max_latency_ms",))
    found = recommend(rows, (), wished, CPU)
    assert found is not None
    assert str(found.teacher_suffices).startswith("The teacher holds the target's wishes without any distillation:")
    unlimited = recommend(rows, (), Limits(), CPU)
    assert unlimited is not None
    assert unlimited.teacher_suffices is None


def test_a_limit_that_was_not_measured_is_not_said_to_hold(variant: Maker) -> None:
    rows = [variant("student", "fp32"), variant("teacher", "fp32")]
    found = recommend(rows, (), Limits(max_latency_ms=5, max_size_mib=50), JETSON)
    assert found is not None
    assert found.teacher_suffices is None
    sized = recommend(rows, (), Limits(max_size_mib=50), JETSON)
    assert sized is not None
    assert sized.teacher_suffices is not None


@pytest.mark.parametrize(
    ("teacher_ms", "teacher_mib", "taken", "words"),
    [
        (
            0.15,
            40.0,
            "student fp32",
            "gains no speed, only size on this host: teacher int8 takes 0.150 ms, student fp32",
        ),
        (0.201, 40.0, "student fp32", "gains no speed, only size on this host"),
        (
            0.201,
            0.29,
            "teacher int8",
            "gains nothing on this host: teacher int8 takes 0.201 ms, student fp32 0.200 ms.",
        ),
        (0.25, 0.29, "student fp32", None),
    ],
)
def test_a_student_that_gains_nothing_is_not_taken(
    measured: Maker, teacher_ms: float, teacher_mib: float, taken: str, words: str | None
) -> None:
    rows = [measured("student", "fp32", 0.2), measured("teacher", "int8", teacher_ms, size_mib=teacher_mib)]
    found = recommend(rows, (), Limits(), CPU)
    assert chosen(found) == taken
    assert found is not None
    if teacher_ms == 0.15:
        assert found.rejected[0].reason == "is faster (0.150 ms), but larger"
    if words is None:
        assert found.teacher_suffices is None
    else:
        assert f"The student {words}" in str(found.teacher_suffices)


def test_the_teacher_is_left_where_no_student_holds_the_limits(
    measured: Maker, proportion: Callable[[int, int], Proportion]
) -> None:
    spoilt = Scores(eval=proportion(900, 1000))
    rows = [measured("student", "int8", 0.1, agreement_with_fp32=spoilt), measured("teacher", "fp32", 0.2)]
    found = recommend(rows, (), Limits(), CPU)
    assert chosen(found) == "teacher fp32"
    assert found is not None
    assert found.rejected[0].reason == "loses 10 points against fp32 on 1,000 images, more than the 1 point allowed"


def test_a_failure_on_the_target_counts_as_a_missed_limit(measured: Maker, variant: Maker) -> None:
    broken = variant("student", "int8", failed_on_target="trtexec ended with 1: no kernel.")
    rows = [measured("student", "fp32", 0.3), measured("student", "fp16", 0.1), broken]
    found = recommend(rows, (), Limits(), JETSON)
    assert chosen(found) == "student fp16"
    assert found is not None
    assert "fp32 takes 3.00 times as long and int8 failed there." in found.reason
    assert found.rejected[1].reason == "failed on the target: trtexec ended with 1: no kernel"
    # Not even where it once was the fastest.
    fast = measured("student", "int8", 0.01, failed_on_target="The outputs are wrong.")
    assert chosen(recommend([*rows[:2], fast], (), Limits(), JETSON)) == "student fp16"
    alone = recommend([fast], (), Limits(), JETSON)
    assert alone is not None
    assert alone.reason == "No artefact holds the limits."


def test_a_measurement_of_another_model_is_not_nothing(measured: Maker, variant: Maker) -> None:
    title = JETSON.title
    rows = [variant("student", "fp32"), variant("student", "fp16"), measured("teacher", "fp32", 4.0)]
    found = recommend(rows, (), Limits(), JETSON)
    assert chosen(found) == "student fp16"
    assert found is not None
    assert found.reason.startswith(
        f"Student fp16 is recommended by its kind, since no student within the limits was measured on {title}:"
    )
    assert {one.variant: one.reason for one in found.rejected}["teacher fp32"] == (
        f"takes 4.00 ms on {title}, where no student within the limits was measured"
    )
    broken = variant("student", "fp16", failed_on_target="The engine was not built.")
    found = recommend([variant("student", "fp32"), broken], (), Limits(), JETSON)
    assert found is not None
    assert found.reason == (
        f"Student fp32 is recommended, since no student within the limits was measured on {title} and fp16 failed "
        "there."
    )


def test_faster_within_the_noise_is_not_called_larger(variant: Maker, latency: Callable[..., LatencyStats]) -> None:
    def row(precision: str, p50_ms: float, interval: tuple[float, float], size_mib: float) -> Variant:
        found = latency(p50_ms, is_target=True, latency_p50_interval_ms=interval)
        return variant("student", precision, latency_target=found, size_mib=size_mib)

    # fp32 cannot be told from the shaky fastest, and fp16 between them is the smaller file.
    rows = [
        row("fp32", 0.12, (0.115, 0.125), 4.0),
        row("fp16", 0.11, (0.109, 0.111), 2.0),
        row("int8", 0.1, (0.08, 0.12), 1.0),
    ]
    found = recommend(rows, (), Limits(), CPU)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert [one.reason for one in found.rejected] == [
        "is faster within the noise (0.110 ms)",
        "is not clearly faster (0.100 ms)",
    ]


def test_an_engine_is_preferred_where_it_was_measured_and_a_file_where_not(measured: Maker, variant: Maker) -> None:
    engine = {"format": "engine", "path": "engine/student.fp16.engine"}
    rows = [measured("student", "fp16", 0.1, **engine), variant("student", "fp16")]
    found = recommend(rows, (), Limits(), JETSON)
    assert found is not None
    assert (found.format, found.path) == ("engine", "engine/student.fp16.engine")
    assert found.rejected[0].reason == "was not measured on NVIDIA Jetson Orin Nano Super 8 GB"
    found = recommend([variant("student", "fp16", **engine), variant("student", "fp16")], (), Limits(), JETSON)
    assert found is not None
    assert found.format == "onnx"


def test_a_prediction_excludes_nothing_unless_it_is_accepted(
    variant: Maker, prediction: Callable[..., Prediction]
) -> None:
    rows = [
        variant("student", "fp32", latency_predicted=prediction(4.0)),
        variant("student", "fp16", latency_predicted=prediction(6.0)),
    ]
    trusting = recommend(rows, (), Limits(max_latency_ms=5, accept_predicted=True), JETSON)
    assert chosen(trusting) == "student fp32"
    assert trusting is not None
    assert trusting.rejected[0].reason == (
        f"is predicted to take ≈6.0 ms (4.5 to 7.5) on {JETSON.title}, above the limit of 5 ms"
    )
    assert trusting.reason.endswith("The limit of 5 ms holds by a prediction, which was accepted.")
    wary = recommend(rows, (), Limits(max_latency_ms=5), JETSON)
    assert chosen(wary) == "student fp16"
    assert wary is not None
    assert wary.reason.endswith("The limit of 5 ms is unproven: the latency is only predicted.")


def test_a_measurement_goes_before_a_prediction_and_predictions_are_never_compared(
    measured: Maker, variant: Maker, prediction: Callable[..., Prediction]
) -> None:
    rows = [
        measured("student", "fp32", 4.0, latency_predicted=prediction(9.0)),
        variant("student", "fp16", latency_predicted=prediction(1.0)),
    ]
    found = recommend(rows, (), Limits(max_latency_ms=5, accept_predicted=True), JETSON)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert "predict" not in found.reason
    assert found.rejected[0].reason == f"was not measured on {JETSON.title}"


def test_a_wish_of_the_target_gives_way_and_a_limit_does_not(measured: Maker) -> None:
    rows = [measured("student", "fp32", 40.0), measured("student", "fp16", 36.0)]
    found = recommend(rows, (), Limits(max_latency_ms=33.3, wishes=("max_latency_ms",)), JETSON)
    assert chosen(found) == "student fp16"
    assert found is not None
    assert found.reason.startswith(
        f"No artefact holds the target's wish of 33.3 ms. Student fp16 is recommended: 36.0 ms on {JETSON.title}"
    )
    # Where one artefact holds it, a wish decides like a limit.
    one = recommend(rows, (), Limits(max_latency_ms=38.0, wishes=("max_latency_ms",)), JETSON)
    assert one is not None
    assert one.rejected[0].reason == f"takes 40.0 ms on {JETSON.title}, above the target's wish of 38 ms"
    both = Limits(max_latency_ms=33.3, max_size_mib=0.1, wishes=("max_latency_ms",))
    nothing = recommend(rows, (), both, JETSON)
    assert nothing is not None
    assert (nothing.model, nothing.reason) == (None, "No artefact holds the limits.")


def test_a_network_of_too_many_parameters_is_out(measured: Maker) -> None:
    rows = [measured("student", "fp32", 0.2), measured("teacher", "fp32", 0.1)]
    counts: ParamsM = {"student": 0.5, "teacher": 2.0}
    found = recommend(rows, (), Limits(max_params_m=1.0), CPU, counts)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert found.rejected[0].reason == "has 2.00 M parameters, above the limit of 1 M parameters"
    assert found.teacher_suffices is None
    loose = recommend(rows, (), Limits(max_params_m=3.0), CPU, counts)
    assert loose is not None
    assert str(loose.teacher_suffices).endswith("teacher fp32 has 2.00 of 3 M parameters.")


def test_another_power_mode_neither_excludes_nor_decides(variant: Maker, latency: Callable[..., LatencyStats]) -> None:
    target = load_target("jetson@15W")
    board = {"origin": "merged", "is_target": True, "other_power_mode": "MAXN_SUPER"}
    rows = [
        variant("student", "fp32", latency_target=latency(9.0, **board)),
        variant("student", "fp16", latency_target=latency(2.1, **board)),
        variant("student", "int8", latency_target=latency(1.0, **board)),
        variant("teacher", "fp16", latency_target=latency(2.1, **board)),
    ]
    found = recommend(rows, (), Limits(max_latency_ms=2.5), target)
    assert found is not None
    assert chosen(found) == "student fp16"
    assert found.teacher_suffices is None
    assert f"by its kind, since nothing was measured on {target.title} in the power mode of its profile" in found.reason
    assert found.reason.endswith("The limit of 2.5 ms is unproven: the board ran in another power mode.")
    assert "above" not in " ".join(one.reason for one in found.rejected)
    # One in the target's own mode decides.
    board["other_power_mode"] = None
    rows[0] = variant("student", "fp32", latency_target=latency(2.4, **board))
    found = recommend(rows, (), Limits(max_latency_ms=2.5), target)
    assert chosen(found) == "student fp32"
    assert found is not None
    assert found.rejected[0].reason == "was measured in power mode MAXN_SUPER (2.10 ms), not in 15W"
