"""A student by itself: which candidates there are, which one is chosen and why, and when none can be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
import torch
import torch_pruning
from torch import Tensor, nn
from torchvision import models

from compressor.errors import exit_code_of
from compressor.inputs import teacher_onnx
from compressor.inputs.teacher import Teacher
from compressor.report import text
from compressor.students import trial
from compressor.students.architectures import ARCHITECTURES, Architecture
from compressor.students.bounds import Bound
from compressor.students.search import (
    PRUNE_RATIOS,
    WIDTHS,
    Candidate,
    NoStudentFits,
    StudentLimits,
    StudentSearch,
    search_student,
)
from compressor.students.specification import build_backbone
from compressor.students.student import own_classifier
from exporters.errors import ExportError
from exporters.macs import count_macs, count_params
from exporters.onnx_files import OnnxFile
from profiles.errors import ProfileError
from profiles.latency import LatencyStats
from profiles.predict import Prediction, PredictionRefused

MS_PER_MAC = 1e-6
GRAPH_MIB = 0.25
ALL = (*(f"prune:{ratio}" for ratio in PRUNE_RATIOS), *(f"width:{width}" for width in WIDTHS))


def measured(ms: float) -> LatencyStats:
    return LatencyStats(
        device="a board",
        is_target=True,
        runtime="ONNX Runtime",
        versions={},
        batch_size=1,
        latency_p50_ms=ms,
        latency_p90_ms=ms,
        latency_p99_ms=ms,
        latency_p50_interval_ms=(0.9 * ms, 1.1 * ms),
        interval_confidence=0.97,
        throughput_ips=1e3 / ms,
        warmup_count=1,
        count=100,
        num_windows=6,
        num_windows_used=6,
        window_s=0.1,
        cv=0.01,
        cv_bound=0.05,
        stable=True,
    )


def predicted(ms: float) -> Prediction:
    return Prediction(
        device="a board",
        precision="fp16",
        batch_size=1,
        latency_p50_ms=ms,
        latency_p50_interval_ms=(0.5 * ms, 2 * ms),
        interval_confidence=0.9,
        basis="calibrated",
        anchors=("a network on a board: 1 ms",),
        num_measurements=3,
        doubts=(),
    )


class Bench:
    """Stands in for exporter and predictor: a file is its parameters and a graph, a latency follows the MACs."""

    def __init__(self) -> None:
        self.exported = 0
        self.fails: Callable[[int], bool] = lambda _params: False
        self.result: Callable[[float], LatencyStats | Prediction] = predicted
        self._macs = 0

    def export(self, model: nn.Module, shape: tuple[int, int, int], path: Path, **_: Any) -> OnnxFile:
        self.exported += 1
        if self.fails(params := count_params(model)):
            raise ExportError("torch.onnx could not export Odd.", "Operators.", "Rewrite it.")
        self._macs = count_macs(model, shape)
        return OnnxFile(path, 17, params * 4 / 2**20 + GRAPH_MIB, "0" * 64)

    def latency(self, _path: Path) -> LatencyStats | Prediction:
        return self.result(self._macs * MS_PER_MAC)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    found = Bench()
    monkeypatch.setattr(trial, "onnx_from_torch", found.export)
    monkeypatch.setattr(teacher_onnx, "onnx_from_torch", found.export)
    return found


def search(teacher: Teacher, bench: Bench, **changes: Any) -> StudentSearch:
    settings: dict[str, Any] = {
        "limits": StudentLimits(),
        "channel_multiple": 4,
        "precision": "fp16",
        "latency_of": bench.latency,
        "opset_ceiling": 17,
        "seed": 0,
        "note": lambda _line: None,
    }
    return search_student(teacher, **settings | changes)


def by_spec(found: StudentSearch) -> dict[str, Candidate]:
    return {candidate.spec: candidate for candidate in found.candidates}


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_without_a_limit_the_student_has_at_most_half_of_the_macs(bench: Bench) -> None:
    found = search(tiny.teacher("cifar_resnet20"), bench)
    half = (found.teacher.macs_g or 0.0) / 2
    rows = by_spec(found)
    assert tuple(rows) == ALL[: len(PRUNE_RATIOS)]
    fitting = [spec for spec, row in rows.items() if (row.macs_g or 0.0) <= half]
    assert found.chosen == fitting[0] == "prune:0.3"
    assert [spec for spec, row in rows.items() if not row.misses] == fitting
    assert found.reason == (
        "prune:0.3 is the pruned copy with the most MACs up to half of the teacher's, "
        f"{100 * rows['prune:0.3'].macs_g / (2 * half):.1f} % of them."  # type: ignore[operator]
    )
    assert found.notes == ()


def test_what_is_above_half_is_timed_as_well(bench: Bench) -> None:
    above = by_spec(search(tiny.teacher("cifar_resnet20"), bench))["prune:0.1"]
    assert above.latency is not None
    assert above.misses == (f"{1e3 * (above.macs_g or 0.0):.3g} M MACs, above half of the teacher's",)


def test_what_its_counts_rule_out_is_not_exported_and_says_why(bench: Bench) -> None:
    limits = StudentLimits(max_latency_ms=1e3, max_params_m=0.1)
    found = search(tiny.teacher("cifar_resnet20"), bench, limits=limits)
    for row in found.candidates:
        above = (row.params_m or 0.0) > 0.1
        assert (row.latency is None) == above
        assert row.misses == (
            (f"{1e3 * (row.params_m or 0.0):.3g} k parameters, above the limit of 100 k parameters",) * above
        )
    assert bench.exported == 1 + sum(not row.misses for row in found.candidates)  # and the teacher


def test_a_limit_of_latency_takes_the_most_capable_below_it(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    whole = search(teacher, bench).teacher.latency
    assert whole is not None
    limit = 0.7 * whole.latency_p50_ms
    found = search(teacher, bench, limits=StudentLimits(max_latency_ms=limit))
    times = [row.latency.latency_p50_ms for row in found.candidates if row.latency is not None]
    assert len(times) == len(found.candidates)  # half of the MACs is no rule any more
    chosen = found.choice().latency
    assert chosen is not None
    assert chosen.latency_p50_ms == max(ms for ms in times if ms <= limit)
    first = found.candidates[0]
    assert first.misses == (
        f"≈{text.beside(times[0], round(limit, 2), 2)} ms predicted, above the limit of {limit:.2f} ms",
    )


@pytest.mark.parametrize("quantity", ["size_mib", "params_m"])
def test_each_limit_by_itself(bench: Bench, quantity: str) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    rows = search(teacher, bench, limits=StudentLimits(max_size_mib=100)).candidates
    limit = getattr(rows[4], quantity) * 1.0001
    found = search(teacher, bench, limits=StudentLimits(**{f"max_{quantity}": limit}))
    assert found.chosen == rows[4].spec
    assert [bool(row.misses) for row in found.candidates] == [True] * 4 + [False] * (len(found.candidates) - 4)


def test_the_size_is_that_of_the_precision_which_ships(bench: Bench) -> None:
    teacher = tiny.teacher()
    weights_mib = {}
    for precision, width in (("fp32", 4), ("fp16", 2)):
        found = search(teacher, bench, precision=precision)
        assert found.precision == precision
        row = found.choice()
        weights_mib[precision] = (row.params_m or 0.0) * 1e6 * width / 2**20
        assert row.size_mib == pytest.approx(weights_mib[precision] + GRAPH_MIB)
    assert weights_mib["fp32"] == 2 * weights_mib["fp16"]


def test_what_ships_is_counted_with_its_projector_and_the_teachers_classifier(bench: Bench) -> None:
    from compressor.students.specification import build_backbone
    from compressor.students.student import classifier_sharing

    teacher = tiny.teacher()
    found = search(teacher, bench).choice()
    student = classifier_sharing(build_backbone(found.spec, teacher, channel_multiple=4, seed=0), teacher)
    assert found.params_m == count_params(student) / 1e6
    assert found.macs_g == count_macs(student, teacher.card.input_shape) / 1e9


def test_equal_networks_are_one_candidate(bench: Bench) -> None:
    found = search(tiny.teacher(), bench, channel_multiple=8)
    costs = [(row.params_m, row.macs_g) for row in found.candidates]
    assert len(set(costs)) == len(costs) < len(PRUNE_RATIOS)


# --- where pruned copies do not do ------------------------------------------------------------------------------------


def test_narrower_copies_follow_where_no_pruned_one_fits(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    smallest = search(teacher, bench, channel_multiple=16).candidates[-1]
    limits = StudentLimits(max_params_m=0.5 * (smallest.params_m or 0.0))
    found = search(teacher, bench, channel_multiple=16, limits=limits)
    assert {row.kind for row in found.candidates} == {"pruned", "narrower"}
    assert all(row.misses for row in found.candidates if row.kind == "pruned")
    assert found.choice().kind == "narrower"
    assert found.reason.startswith(f"{found.chosen} is the narrower copy with the most MACs")


def test_other_architectures_come_last_and_are_smaller_than_the_teacher(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    with pytest.raises(NoStudentFits):
        search(teacher, bench, limits=StudentLimits(max_latency_ms=1e-6))
    notes: list[str] = []
    with pytest.raises(NoStudentFits):
        search(teacher, bench, limits=StudentLimits(max_latency_ms=1e-6), note=notes.append)
    tried = [line.partition(": ")[0] for line in notes]
    assert tried[0] == "cifar_resnet20"
    assert tried[-3:] == ["cifar_resnet14", "cifar_wrn16_1", "cifar_resnet8"]
    assert set(tried[1:-3]) <= set(ALL)


def test_a_network_that_cannot_be_pruned_falls_back_with_one_sentence(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    teacher.network.bn1 = _Shuffled(teacher.network.get_submodule("bn1"))
    found = search(teacher, bench)
    first, *others = found.candidates
    assert (first.spec, first.kind, first.macs_g) == ("prune:0.1", "pruned", None)
    assert first.failure is not None
    assert first.failure.startswith("Pruning cifar_resnet20 by 0.1 failed: RuntimeError")
    assert {row.kind for row in others} == {"narrower"}
    assert found.notes == (f"{first.failure} Narrower copies and other architectures are candidates instead.",)
    assert found.choice().kind == "narrower"


def test_a_real_shufflenet_falls_back_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    body = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")

    def build(num_classes: int, _channels: int, _width: float) -> nn.Module:
        network: nn.Module = models.shufflenet_v2_x1_0(weights=None, num_classes=num_classes)
        return network

    entry = Architecture(build, "conv5", "fc", body, "shufflenet")
    monkeypatch.setitem(ARCHITECTURES, "shufflenet", entry)  # type: ignore[arg-type]
    found = search(tiny.teacher("shufflenet", image_shape=(3, 128, 128)), bench)
    assert found.candidates[0].failure is not None
    assert "shufflenet" in found.notes[0]
    assert found.choice().kind != "pruned"


# --- other tasks ------------------------------------------------------------------------------------------------------


def test_a_segmentation_has_pruned_copies_with_a_classifier_of_their_own(bench: Bench) -> None:
    teacher = tiny.teacher("unet16", image_shape=(3, 32, 48))
    found = search(teacher, bench)
    assert {row.kind for row in found.candidates} == {"pruned"}
    backbone = build_backbone(found.chosen, teacher, channel_multiple=4, seed=0)
    student = own_classifier(backbone, teacher)
    assert found.choice().params_m == count_params(student) / 1e6
    assert count_macs(student, (3, 32, 48)) < 0.5 * count_macs(teacher.network, (3, 32, 48))


def test_a_segmentation_of_one_width_falls_back_to_networks_for_pixels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot trace")

    monkeypatch.setattr(torch_pruning.pruner, "MagnitudePruner", untraceable)
    teacher = tiny.teacher("deeplabv3_mobilenet_v3_large", image_shape=(3, 32, 48))
    found = search(teacher, bench)
    names = [row.spec for row in found.candidates if row.kind == "other"]
    assert [row.kind for row in found.candidates] == ["pruned", *("other" for _ in names)]
    assert set(names) <= {name for name, entry in ARCHITECTURES.items() if "segmentation" in entry.tasks}
    assert {"lraspp_mobilenet_v3_large", "unet8"} <= set(names)


@pytest.mark.parametrize("opset_ceiling", [17, 20])
def test_a_real_segmentation_is_exported_as_it_ships(tmp_path: Path, opset_ceiling: int) -> None:
    teacher = tiny.dense_teacher(image_shape=(3, 16, 24))
    made = trial.Trial(
        teacher,
        tmp_path,
        channel_multiple=2,
        precision="fp32",
        latency_of=None,
        opset_ceiling=opset_ceiling,
        seed=0,
    )
    row = made.row("prune:0.5", "pruned", ())
    assert row is not None
    assert row.candidate.failure is None
    (output,) = onnx.load(tmp_path / "candidate.onnx").graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 4, 16, 24]


def test_a_candidate_that_cannot_be_exported_is_passed_over(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    first = search(teacher, bench).choice()
    bench.fails = lambda params: params == round(1e6 * (first.params_m or 0.0))
    found = search(teacher, bench)
    assert by_spec(found)[first.spec].failure == "torch.onnx could not export Odd."
    assert found.chosen == "prune:0.4"


# --- wishes, memory, and latencies that are not to be had -------------------------------------------------------------


def test_a_wish_counts_as_long_as_something_holds_it(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    plain = search(teacher, bench).choice().latency
    assert plain is not None
    wish = 0.5 * plain.latency_p50_ms
    found = search(teacher, bench, wishes=StudentLimits(max_latency_ms=wish))
    chosen = found.choice().latency
    assert chosen is not None
    assert chosen.latency_p50_ms <= wish
    about = text.beside(chosen.latency_p50_ms, float(f"{wish:.3g}"), 2)
    assert f": ≈{about} ms predicted, {text.significant(wish)} ms allowed." in found.reason


def test_a_wish_that_nothing_holds_is_given_up_and_said(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    found = search(teacher, bench, wishes=StudentLimits(max_latency_ms=1e-4))
    assert found.chosen == search(teacher, bench).chosen
    assert "No candidate holds the target's wish of 0.000100 ms; this one has " in found.reason
    assert all("above the target's wish of 0.000100 ms" in " ".join(row.misses) for row in found.candidates)


def test_the_users_limit_takes_the_place_of_the_wish(bench: Bench) -> None:
    limits, wishes = StudentLimits(max_latency_ms=1e3), StudentLimits(max_latency_ms=1e-4)
    found = search(tiny.teacher("cifar_resnet20"), bench, limits=limits, wishes=wishes)
    assert found.chosen == "prune:0.1"
    assert not any(row.misses for row in found.candidates)


def test_what_does_not_fit_into_the_memory_is_no_student(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20", image_shape=(3, 32, 32))
    smallest = search(teacher, bench).candidates[-1]
    values = 2 * 16 * 32 * 32  # of the first layer's batch norm, before pruning
    teacher_gib = (1e6 * (smallest.params_m or 0.0) + values / 2) * 2 / 2**30
    found = search(teacher, bench, memory_gib=2 * teacher_gib)
    assert any("GiB of memory" in miss for row in found.candidates for miss in row.misses)
    assert not any("GiB of memory" in miss for miss in found.choice().misses)
    with pytest.raises(NoStudentFits) as refused:
        search(teacher, bench, memory_gib=1e-6)
    assert "above the target's 0.00000100 GiB of memory" in refused.value.expected
    assert refused.value.action == "Choose a target with more memory, or a teacher for smaller images."


def test_where_no_latency_can_be_had_the_limit_is_unproven_and_half_of_the_macs_decides(bench: Bench) -> None:
    asked: list[Path] = []

    def refuse(path: Path) -> Prediction:
        asked.append(path)
        raise PredictionRefused("The profile of a board has no peaks.", "A prediction needs them.", "Add them.")

    teacher = tiny.teacher("cifar_resnet20")
    found = search(teacher, bench, latency_of=refuse, limits=StudentLimits(max_latency_ms=1.0))
    assert len(asked) == 1
    assert found.chosen == search(teacher, bench).chosen
    assert found.reason.endswith("Without a latency, 1.00 ms is unproven.")
    assert found.notes == ("No candidate has a latency: The profile of a board has no peaks. A prediction needs them.",)
    assert all(row.latency is None for row in (found.teacher, *found.candidates))


def untimed(bench: Bench, number: int, error: Exception) -> Callable[[Path], LatencyStats | Prediction]:
    """Latencies of the bench, but for the network of this number: the teacher is the first."""
    asked = 0

    def latency_of(path: Path) -> LatencyStats | Prediction:
        nonlocal asked
        asked += 1
        if asked == number:
            raise error
        return bench.latency(path)

    return latency_of


def test_a_candidate_that_nobody_can_time_fails_alone(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    error = ProfileError("No shape is known for 'odd'.", "Every shape was expected.", "Export it again.")
    plain = search(teacher, bench)
    found = search(teacher, bench, latency_of=untimed(bench, 4, error))
    assert plain.chosen == "prune:0.3" == found.candidates[2].spec
    assert found.candidates[2].failure == "No shape is known for 'odd'."
    assert [row.latency is None for row in found.candidates] == [row is found.candidates[2] for row in found.candidates]
    assert (found.chosen, found.notes) == ("prune:0.4", ())


@pytest.mark.parametrize("refusal", [ProfileError, PredictionRefused])
def test_a_candidate_without_a_latency_is_no_way_around_the_limit(bench: Bench, refusal: type[ProfileError]) -> None:
    bench.result = lambda ms: predicted(9.0 + ms)
    last = len(search(tiny.teacher(), bench).candidates) + 1  # with the teacher; all before it are too slow
    latency_of = untimed(bench, last, refusal("No latency.", "One was expected.", "Measure."))
    with pytest.raises(NoStudentFits) as none:
        search(tiny.teacher(), bench, limits=StudentLimits(max_latency_ms=5.0), latency_of=latency_of)
    assert "predicted, above the limit of 5.00 ms" in none.value.expected


def test_a_limit_inside_the_interval_is_unproven(bench: Bench) -> None:
    teacher = tiny.teacher("cifar_resnet20")
    found = search(teacher, bench, limits=StudentLimits(max_latency_ms=2.0))
    latency = found.choice().latency
    assert latency is not None
    assert latency.latency_p50_ms <= 2 < 2 * latency.latency_p50_ms
    assert found.reason.endswith("so that it holds 2.00 ms is unproven.")
    bench.result = measured
    found = search(teacher, bench, limits=StudentLimits(max_latency_ms=100.0))
    assert "unproven" not in found.reason
    assert " ms measured, 100 ms allowed." in found.reason


def test_a_student_that_is_no_faster_than_its_teacher_says_so(bench: Bench) -> None:
    bench.result = lambda ms: predicted(1.0 + 0.001 / ms)  # a projector more, and starting kernels is all it takes
    found = search(tiny.teacher("cifar_resnet20"), bench)
    assert found.choice().latency.latency_p50_ms > found.teacher.latency.latency_p50_ms  # type: ignore[union-attr]
    (note,) = found.notes
    assert note.startswith(f"{found.chosen} is smaller but no faster than the teacher: ≈1.0")
    assert note.endswith(" ms predicted.")


@pytest.mark.parametrize(
    ("bound", "cost", "words"),
    [
        (Bound("latency_ms", 1.2, "limit"), 1.2034, "≈1.203 ms predicted, above the limit of 1.200 ms"),
        (Bound("latency_ms", 1.2, "wish"), 1.3, "≈1.3 ms predicted, above the target's wish of 1.20 ms"),
        (Bound("latency_ms", 1.22, "limit"), 1.24, "≈1.24 ms predicted, above the limit of 1.22 ms"),
        (Bound("params_m", 0.1, "limit"), 0.10001, "0.10001 M parameters, above the limit of 0.10000 M parameters"),
        (Bound("size_mib", 2.0, "limit"), 2.0 + 2**-40, "MiB, above the limit of 2.000"),
        (
            Bound("memory_gib", 8.0, "device"),
            8.002,
            "8.002 GiB of weights and activations, above the target's 8.000 GiB of memory",
        ),
    ],
)
def test_a_cost_just_above_its_bound_is_told_from_it(bound: Bound, cost: float, words: str) -> None:
    said = bound.words({bound.quantity: cost}, "predicted")
    assert words in said
    first, second = re.findall(r"\d[\d.]*", said)
    assert float(first) > float(second)


def test_a_cost_just_above_its_limit_is_said_once_and_the_way_out_is_above_it(bench: Bench) -> None:
    bench.result = lambda _: predicted(1.2004)
    lines: list[str] = []
    with pytest.raises(NoStudentFits) as refused:
        search(tiny.teacher(), bench, limits=StudentLimits(max_latency_ms=1.2), note=lines.append)
    assert lines[1].endswith(" MACs; ≈1.2004 ms predicted, above the limit of 1.2000 ms")
    assert refused.value.action == "Use --max-latency-ms above 1.2004, a faster target, or a smaller teacher."


@pytest.mark.parametrize(
    ("bound", "cost", "how", "words"),
    [
        (Bound("latency_ms", 33.3, "wish"), 0.7234, "predicted", "≈0.72 ms predicted, 33.3 ms allowed"),
        (Bound("latency_ms", 33.3, "wish"), 0.7234, "measured", "0.723 ms measured, 33.3 ms allowed"),
        (Bound("latency_ms", 1.2004, "limit"), 1.2, "predicted", "≈1.2 ms predicted, 1.2004 ms allowed"),
        (Bound("latency_ms", 1.24, "limit"), 1.239, "predicted", "≈1.2 ms predicted, 1.240 ms allowed"),
        (Bound("latency_ms", 1.2, "limit"), 1.2, "predicted", "≈1.2 ms predicted, 1.20 ms allowed"),
        (Bound("size_mib", 2.0, "limit"), 0.5, "predicted", "512 KiB, 2.00 MiB allowed"),
    ],
)
def test_a_cost_within_its_bound_is_said_in_the_digits_that_it_is_worth(
    bound: Bound, cost: float, how: str, words: str
) -> None:
    assert bound.within({bound.quantity: cost}, how) == words


# --- nothing fits -----------------------------------------------------------------------------------------------------


def test_an_impossible_limit_is_refused_with_the_closest_candidates(bench: Bench) -> None:
    with pytest.raises(NoStudentFits) as refused:
        search(tiny.teacher("cifar_resnet20"), bench, limits=StudentLimits(max_latency_ms=0.001, max_size_mib=0.1))
    error = refused.value
    assert exit_code_of(error) == 4
    assert error.received == "No student of cifar_resnet20 fits within 0.00100 ms and 102 KiB."
    assert "the closest are " in error.expected
    assert error.expected.count("ms predicted, above the limit of 0.00100 ms") == 3
    assert error.action.startswith("Use --max-latency-ms above 0.")
    assert "--max-size-mib above 0.2" in error.action
    assert all(sentence.endswith(".") for sentence in (error.received, error.expected, error.action))


def test_where_every_candidate_fails_the_failures_are_told(bench: Bench) -> None:
    bench.fails = lambda _params: True
    with pytest.raises(NoStudentFits) as refused:
        search(tiny.teacher(), bench)
    assert refused.value.expected == "No candidate could be made: torch.onnx could not export Odd."


def test_a_teacher_that_has_no_half_gets_its_smallest_student(bench: Bench) -> None:
    found = search(tiny.teacher(width=0.5), bench, channel_multiple=8)
    smallest = min(found.candidates, key=lambda row: row.macs_g or 0.0)
    if any((row.macs_g or 0.0) <= (found.teacher.macs_g or 0.0) / 2 for row in found.candidates):
        pytest.skip("this teacher has one")
    assert found.chosen == smallest.spec
    assert found.reason.startswith("No candidate has half of the teacher's MACs or fewer; ")


# --- as data, and again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [measured, predicted])
def test_the_record_survives_json(bench: Bench, result: Callable[[float], LatencyStats | Prediction]) -> None:
    bench.result = result
    found = search(tiny.teacher(), bench, limits=StudentLimits(max_size_mib=3.0))
    assert StudentSearch.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_same_is_found_again_and_nothing_else_changes(bench: Bench) -> None:
    teacher = tiny.teacher()
    before, state = tiny.snapshot(teacher), torch.random.get_rng_state()
    found = search(teacher, bench)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert tiny.equal(tiny.snapshot(teacher), before)
    torch.rand(3)
    assert search(teacher, bench) == found


def test_every_candidate_is_told_as_it_comes(bench: Bench) -> None:
    lines: list[str] = []
    found = search(tiny.teacher("cifar_resnet20"), bench, note=lines.append)
    assert [line.partition(": ")[0] for line in lines] == ["cifar_resnet20", *(row.spec for row in found.candidates)]
    assert lines[1].endswith(" M MACs, above half of the teacher's")
    assert lines[-1].endswith(" ms predicted")


class _Shuffled(nn.Module):
    """Ends in a reshape that fixes its number of channels, as ShuffleNetV2's does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y.view(len(y), 2, 8, *y.shape[2:]).transpose(1, 2).reshape(len(y), 16, *y.shape[2:])
