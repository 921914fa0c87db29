"""The benchmark's arithmetic, and that its page, its numbers and the shipped prior belong together."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.latency_prediction import (
    PAGE,
    POOLED,
    RESULTS,
    Baselines,
    Case,
    cases_of,
    fit_baselines,
    left_out,
    page_tables,
    rank_correlation,
    readme_table,
    relative_line,
    with_tables,
)
from benchmarks.latency_prior import DEVIATIONS, STATED, chosen_prior
from profiles.calibration import Calibration
from profiles.measurements import published
from profiles.predict import CPU_PRIOR, GPU_PRIOR


@pytest.fixture(scope="module")
def nano() -> list[Case]:
    return cases_of(row for row in published().measurements if row.device == "jetson-nano")


def test_a_line_is_fitted_to_relative_errors() -> None:
    assert relative_line([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx((1.0, 2.0))
    assert relative_line([2.0], [6.0]) == (0.0, 3.0)
    assert relative_line([1.0, 2.0], [1.0, 4.0])[0] == 0.0  # a negative constant is no fixed cost
    assert relative_line([1.0, 2.0], [4.0, 1.0])[1] == 0.0


def test_ranks_share_a_place_where_values_are_equal() -> None:
    rising = np.array([1.0, 2.0, 2.0, 5.0])
    assert rank_correlation(rising, 10 * rising) == 1.0
    assert rank_correlation(rising, -rising) == -1.0
    assert rank_correlation(rising, np.ones(4)) is None


def test_the_roofline_takes_the_larger_of_arithmetic_and_memory(nano: list[Case]) -> None:
    vgg = next(case for case in nano if case.row.model == "vgg16" and case.row.precision == "fp16")
    arithmetic_ms = vgg.flops / 0.472e12 * 1e3
    assert vgg.flops == pytest.approx(2 * 15.47e9, rel=0.005)
    assert arithmetic_ms < vgg.roofline_ms < 1.3 * arithmetic_ms


def test_networks_that_fuse_to_the_same_kernels_are_left_out_together(nano: list[Case]) -> None:
    networks = {case.row.model: case.network for case in nano}
    assert networks["vgg16_bn"] == networks["vgg16"]
    assert networks["vgg13"] != networks["vgg16"]


def test_a_baseline_knows_only_its_training_rows(nano: list[Case]) -> None:
    half = [case for case in nano if case.row.family != "resnet"]
    fitted = fit_baselines(half)
    assert fitted == fit_baselines(list(half))
    assert fitted != fit_baselines(nano)
    assert set(fitted.lines) <= {case.condition for case in half}
    absent = Baselines(fitted.efficiency, {}, (0.5, 2e3))
    assert absent.flops(nano[0]) == 0.5 + 2e3 * nano[0].flops / nano[0].peak_flops_s


def test_leaving_out_never_sees_the_row(nano: list[Case]) -> None:
    """A row's own latency may be anything: its prediction stays."""
    few = [case for case in nano if case.row.family in ("resnet", "squeezenet", "vgg")]
    wrong = [change_latency(case, 10.0) if case.row.family == "squeezenet" else case for case in few]
    there, elsewhere = (
        {row["model"]: row for row in left_out(cases, "families", lambda case: case.row.family, {})}
        for cases in (few, wrong)
    )
    assert there["squeezenet1_1"]["ours_ms"] == elsewhere["squeezenet1_1"]["ours_ms"]
    assert there["squeezenet1_1"]["flops_ms"] == elsewhere["squeezenet1_1"]["flops_ms"]
    assert there["vgg16"]["ours_ms"] != elsewhere["vgg16"]["ours_ms"]


def change_latency(case: Case, factor: float) -> Case:
    from dataclasses import replace

    observation = replace(case.measured.observation, latency_ms=factor * case.row.latency_ms)
    return replace(
        case,
        row=replace(case.row, latency_ms=factor * case.row.latency_ms),
        measured=replace(case.measured, observation=observation),
    )


def test_a_chosen_prior_has_more_evidence_and_stays_near_what_was_stated(nano: list[Case]) -> None:
    observations = [case.measured.observation for case in nano]
    chosen = chosen_prior(observations)
    assert Calibration(observations, chosen).log_evidence > Calibration(observations, STATED).log_evidence
    assert chosen.centre == STATED.centre
    for name in DEVIATIONS:
        assert abs(math.log(getattr(chosen, name) / getattr(STATED, name))) < 2


def test_the_shipped_prior_is_what_the_benchmark_chose() -> None:
    priors = json.loads(RESULTS.read_text())["priors"]
    assert {k: v for k, v in priors["gpu"].items() if k != "centre"} == deviations(asdict(GPU_PRIOR))
    assert {k: v for k, v in priors["cpu"].items() if k != "centre"} == deviations(asdict(CPU_PRIOR))


def deviations(prior: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in prior.items() if name != "centre"}


def test_the_results_cover_every_measurement_that_counts() -> None:
    results = json.loads(RESULTS.read_text())
    assert results["left_out"] == dict(published().left_out)
    for split in ("models", "families"):
        assert sum(row["split"] == split for row in results["rows"]) == len(published().measurements)


def test_the_recorded_results_keep_what_the_page_says() -> None:
    """For Jetsons under TensorRT, also as users get it. With one anchor the aim of 6 % is missed, as the page says."""
    found = {item["split"]: item for item in json.loads(RESULTS.read_text())["summaries"] if item["group"] == POOLED}
    assert found["models"]["ours"]["median"] <= 0.10
    assert found["families"]["ours"]["median"] <= 0.20
    assert found["one anchor"]["ours"]["median"] <= 0.07
    assert found["models"]["user"]["median"] <= 0.10
    assert found["families"]["user"]["median"] <= 0.20
    assert found["models"]["ours"]["rank_correlation"] >= 0.97
    assert found["families"]["ours"]["rank_correlation"] >= 0.97
    for item in found.values():
        assert 0.80 <= item["coverage"] <= 0.97
        assert 0.80 <= item.get("user", item)["coverage"] <= 0.97
        for baseline in ("roofline", "flops"):
            assert item["ours"]["median"] < item[baseline]["median"]


def test_the_page_holds_the_tables_of_the_results() -> None:
    results = json.loads(RESULTS.read_text())
    text = PAGE.read_text()
    assert with_tables(text, page_tables(results)) == text
    assert readme_table(results).count("\n| ") == 4
