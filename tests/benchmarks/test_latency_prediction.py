"""The benchmark's arithmetic, and that its page, its numbers and the shipped prior belong together."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.latency_prediction import (
    BASELINES,
    PAGE,
    POOLED,
    README,
    README_BEGIN,
    README_END,
    RESULTS,
    Baselines,
    Case,
    cases_of,
    family_of,
    fit_baselines,
    is_sibling,
    left_out,
    network_names,
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
    # One module under five names, and a ResNet-18, which it is not itself.
    fcn = [case for case in nano if case.row.model.startswith("fcn_resnet18")]
    assert len({case.row.key for case in fcn}) == len(fcn) == 10
    assert {case.family for case in fcn} == {"resnet"}
    (name,) = {case.network for case in fcn}
    assert [case for case in nano if case.network == name] == fcn


def test_networks_are_joined_by_way_of_a_third() -> None:
    """a and b have one origin, b and c the same kernels."""
    row = published().measurements[0]
    kernels = published().measurements[-1].kernels
    assert kernels != row.kernels
    a, b = replace(row, model="a", origin="one"), replace(row, model="b", origin="one", kernels=kernels)
    c, d = replace(row, model="c", origin="two", kernels=kernels), replace(row, model="d", origin="three", kernels=())
    assert network_names([a, b, c, d]) == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert len(set(network_names([d, c, b, a]).values())) == 2


def test_all_yolos_are_one_design_line_and_nothing_else_is_joined() -> None:
    cases = cases_of(published().measurements)
    lines = {case.family: case.line for case in cases}
    assert {family for family, line in lines.items() if line == "yolo"} == {"yolov8", "yolo11", "yolo26"}
    assert all(line == family for family, line in lines.items() if line != "yolo")


def test_an_anchor_is_never_the_same_network_again(nano: list[Case]) -> None:
    siblings = [(case, anchor) for anchor in nano for case in nano if is_sibling(case, anchor)]
    assert siblings
    assert all(case.network != anchor.network for case, anchor in siblings)
    assert all(case.condition == anchor.condition and case.family == anchor.family for case, anchor in siblings)


def test_a_baseline_knows_only_its_training_rows(nano: list[Case]) -> None:
    half = [case for case in nano if case.row.family != "resnet"]
    fitted = fit_baselines(half)
    assert fitted == fit_baselines(list(half))
    assert fitted != fit_baselines(nano)
    assert set(fitted.lines) <= {case.condition for case in half}
    absent = Baselines(0.4, {}, {}, (0.5, 2e3))
    assert absent.flops(nano[0]) == 0.5 + 2e3 * nano[0].flops / nano[0].peak_flops_s
    assert absent.tuned_roofline(nano[0]) == absent.roofline(nano[0]) == nano[0].roofline_ms / 0.4
    tuned = replace(absent, efficiencies={nano[0].condition: 0.8})
    assert tuned.tuned_roofline(nano[0]) == absent.roofline(nano[0]) / 2


def test_leaving_out_never_sees_the_row(nano: list[Case]) -> None:
    """A row's own latency may be anything: its prediction stays."""
    few = [case for case in nano if case.row.family in ("resnet", "squeezenet", "vgg")]
    wrong = [change_latency(case, 10.0) if case.row.family == "squeezenet" else case for case in few]
    there, elsewhere = (
        {row["model"]: row for row in left_out(cases, "families", family_of, lambda _: STATED)}
        for cases in (few, wrong)
    )
    assert there["squeezenet1_1"]["ours_ms"] == elsewhere["squeezenet1_1"]["ours_ms"]
    assert there["squeezenet1_1"]["flops_ms"] == elsewhere["squeezenet1_1"]["flops_ms"]
    assert there["vgg16"]["ours_ms"] != elsewhere["vgg16"]["ours_ms"]


def change_latency(case: Case, factor: float) -> Case:
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
    for split in ("models", "families", "lines"):
        assert sum(row["split"] == split for row in results["rows"]) == len(published().measurements)


def test_the_recorded_results_keep_what_the_page_says() -> None:
    """For Jetsons under TensorRT, also as users get it. The page says which aims are missed: the rank correlation of
    0.97 for families and lines, the median of 20 % for lines and that of 6 % for lines with one anchor.
    """
    found = {item["split"]: item for item in json.loads(RESULTS.read_text())["summaries"] if item["group"] == POOLED}
    medians = {"models": 0.10, "families": 0.20, "lines": 0.21, "one anchor": 0.06, "one anchor, lines": 0.061}
    ranks = {"models": 0.97, "families": 0.96, "lines": 0.96, "one anchor": 0.97, "one anchor, lines": 0.97}
    for split, median in medians.items():
        item = found[split]
        assert item["ours"]["median"] <= median
        assert item["ours"]["rank_correlation"] >= ranks[split]
        assert 0.80 <= item["coverage"] <= 0.97
        for baseline in BASELINES:
            assert item["ours"]["median"] < item[baseline]["median"]
        if "user" in item:
            assert item["user"]["median"] <= median
            assert 0.80 <= item["user"]["coverage"] <= 0.97
        else:
            assert item["ours"]["median"] <= 0.5 * item["without"]["median"]


def test_the_page_holds_the_tables_of_the_results() -> None:
    results = json.loads(RESULTS.read_text())
    text = PAGE.read_text()
    assert with_tables(text, page_tables(results)) == text


def test_the_readme_holds_the_table_of_the_results() -> None:
    printed = f"{README_BEGIN}\n{readme_table(json.loads(RESULTS.read_text()))}\n{README_END}"
    assert printed in README.read_text()
    assert printed.count("\n") < 25
