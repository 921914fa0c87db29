"""The hierarchical model on measurements that it made itself."""

import math
from dataclasses import replace

import numpy as np
import pytest

from profiles.calibration import Calibration, Condition, Network, Observation, Prior
from profiles.roofline import PARTS

PRIOR = Prior(
    centre=(0.0,) * len(PARTS),
    common_sd=0.5,
    precision_sd=0.3,
    architecture_sd=0.3,
    device_sd=0.3,
    condition_sd=0.2,
    balance_sd=0.2,
    mix_sd=0.1,
    mix_on_device_sd=0.05,
    mix_length=0.1,
    network_sd=0.05,
    campaign_sd=0.05,
    harness_sd=0.7,
    noise_sd=0.05,
)
BOARD = Condition("board", "8.7", "fp16", 0.0, "a campaign")
SISTER = Condition("sister", "8.7", "fp16", 0.0, "a campaign")
MINE = replace(BOARD, campaign="own")
STRANGER = Condition("stranger", "5.3", "fp32", 0.0, "a campaign")


def network(
    dense: float, launch: float = 0.0, *, fixed: float = 0.0, condition: Condition = BOARD, kind: float = 0.0
) -> Network:
    """A network of at most three parts; `kind` places its mix, and its name follows from its numbers."""
    ideal = [0.0] * len(PARTS)
    ideal[0], ideal[PARTS.index("launch")], ideal[PARTS.index("fixed")] = dense, launch, fixed
    return Network(condition, tuple(ideal), (kind, 1.0), f"{dense} {launch} {kind}")


def truth(item: Network, dense: float, launch: float) -> Observation:
    return Observation(item, dense * item.ideal_ms[0] + launch * item.ideal_ms[PARTS.index("launch")])


def family(dense: float, launch: float, condition: Condition = BOARD) -> list[Observation]:
    """Networks from launch-bound to compute-bound, of kinds too far apart to help each other."""
    sizes = [(0.1, 1.0), (1.0, 0.5), (1.0, 2.0), (5.0, 1.0), (20.0, 1.0), (50.0, 3.0)]
    nets = [network(a, b, condition=condition, kind=float(n)) for n, (a, b) in enumerate(sizes)]
    return [truth(net, dense, launch) for net in nets]


def test_one_measurement_of_one_part_is_the_textbook_gaussian() -> None:
    """log latency = x + noise with x ~ N(0, s2): the mean shrinks by s2 / (s2 + noise variance)."""
    calm = replace(PRIOR, mix_sd=0.0, mix_on_device_sd=0.0, network_sd=0.0, campaign_sd=0.0)
    s2 = 0.5**2 + 3 * 0.3**2 + 0.2**2
    seen = Observation(network(2.0), 2.0 * math.exp(0.03))
    estimate = Calibration([seen], calm).estimate(network(4.0))
    # Student's t trusts a residual of nearly nothing by (4 + 1) / 4.
    noise = 0.05**2 / 1.25
    assert estimate.log_ms == pytest.approx(math.log(4.0) + 0.03 * s2 / (s2 + noise), abs=1e-4)
    assert estimate.sd == pytest.approx(math.sqrt(s2 - s2**2 / (s2 + noise) + 0.05**2), rel=1e-3)


def test_the_cost_of_launches_and_arithmetic_is_told_apart() -> None:
    calibration = Calibration(family(dense=3.0, launch=0.4), PRIOR)
    for dense, launch in ((0.0, 2.0), (10.0, 0.0), (2.0, 4.0)):
        estimate = calibration.estimate(network(dense, launch, kind=9.0))
        assert math.exp(estimate.log_ms) == pytest.approx(3.0 * dense + 0.4 * launch, rel=0.12)
        assert sum(estimate.parts_ms.values()) == pytest.approx(math.exp(estimate.log_ms))


def test_a_device_without_measurements_leans_on_its_architecture_and_is_less_sure() -> None:
    calibration = Calibration(family(dense=3.0, launch=0.4), PRIOR, also=[SISTER, STRANGER])
    own, sister, stranger = (
        calibration.estimate(network(10.0, 1.0, condition=condition, kind=9.0))
        for condition in (BOARD, SISTER, STRANGER)
    )
    assert own.sd < sister.sd < stranger.sd
    assert stranger.log_ms < sister.log_ms < own.log_ms == pytest.approx(math.log(30.4), abs=0.05)


def test_networks_of_a_like_mix_err_alike() -> None:
    """One family runs 20 % slower than its parts say; a new member of it is predicted so, another kind is not."""
    slow = [truth(network(dense, kind=20.0), 1.2 * 3.0, 0.0) for dense in (3.0, 7.0)]
    calibration = Calibration([*family(dense=3.0, launch=0.4), *slow], PRIOR)
    member, other = (calibration.estimate(network(5.0, kind=kind)) for kind in (20.0, 30.0))
    assert member.log_ms - other.log_ms > 0.08
    assert member.sd < other.sd


def test_what_a_harness_adds_stays_with_its_campaign() -> None:
    """One campaign adds 1 ms to whatever it measures, another 0.1 ms: each is predicted as it measures."""
    python, timer = (replace(BOARD, campaign=name) for name in ("python", "timer"))
    rows = [
        truth_with_harness(network(dense, fixed=0.1, condition=condition, kind=float(n)), harness)
        for condition, harness in ((python, 1.0), (timer, 0.1))
        for n, dense in enumerate((0.05, 0.2, 1.0, 5.0, 20.0))
    ]
    calibration = Calibration(rows, PRIOR, also=[MINE])
    slow, fast, own = (
        calibration.estimate(network(0.1, fixed=0.1, condition=condition, kind=9.0))
        for condition in (python, timer, MINE)
    )
    assert math.exp(slow.log_ms) == pytest.approx(1.3, rel=0.1)
    assert math.exp(fast.log_ms) == pytest.approx(0.4, rel=0.15)
    assert fast.log_ms < own.log_ms < slow.log_ms  # nobody knows how the user will measure
    assert own.sd > 1.5 * max(slow.sd, fast.sd)
    large = [calibration.estimate(network(50.0, fixed=0.1, condition=c, kind=9.0)).log_ms for c in (python, timer)]
    assert large[0] == pytest.approx(large[1], abs=0.08)


def truth_with_harness(item: Network, harness_ms: float) -> Observation:
    return Observation(item, 3.0 * item.ideal_ms[0] + harness_ms)


def test_one_odd_row_bends_nothing() -> None:
    good = family(dense=3.0, launch=0.4)
    odd = Observation(network(12.0, 1.0, kind=40.0), 5 * 36.4)
    query = network(10.0, 1.0, kind=9.0)
    clean, bent = (Calibration(rows, PRIOR).estimate(query).log_ms for rows in (good, [*good, odd]))
    assert abs(bent - clean) < 0.03


def test_a_precise_measurement_of_ones_own_outweighs_the_published_ones() -> None:
    published = family(dense=3.0, launch=0.4)
    own = Observation(network(4.0, condition=MINE, kind=50.0), 20.0, 0.01)
    query = network(5.0, condition=MINE, kind=50.0)
    before, after = (
        math.exp(Calibration(rows, PRIOR, also=[MINE]).estimate(query).log_ms)
        for rows in (published, [*published, own])
    )
    assert before == pytest.approx(15.0, rel=0.05)
    assert after == pytest.approx(25.0, rel=0.1)


def test_the_same_network_again_is_nearly_the_same_number() -> None:
    seen = Observation(network(4.0, kind=50.0), 20.0, 0.01)
    estimate = Calibration([*family(3.0, 0.4), seen], PRIOR).estimate(seen.network)
    assert math.exp(estimate.log_ms) == pytest.approx(20.0, rel=0.02)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [*family(3.0, 0.4), *family(2.0, 0.5, SISTER)]
    query = network(10.0, 1.0, kind=9.0)
    there, back = (Calibration(r, PRIOR).estimate(query) for r in (rows, rows[::-1]))
    assert there.log_ms == pytest.approx(back.log_ms, abs=1e-4)
    assert Calibration(rows, PRIOR).estimate(query) == there


def test_intervals_of_the_models_own_draws_cover_as_often_as_they_say() -> None:
    """Devices drawn from the prior, networks with noise: about nine in ten lie within 1.645 deviations."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(40):
        dense, launch = np.exp(random.normal(0, 0.8, 2))
        rows = [
            Observation(o.network, o.latency_ms * math.exp(random.normal(0, 0.13)))
            for o in family(float(dense), float(launch))
        ]
        query = network(float(random.uniform(0.5, 20)), 1.0, kind=9.0)
        actual = math.log(truth(query, float(dense), float(launch)).latency_ms) + random.normal(0, 0.13)
        estimate = Calibration(rows, PRIOR).estimate(query)
        inside.append(abs(estimate.log_ms - actual) <= 1.645 * estimate.sd)
    assert 0.8 <= np.mean(inside) <= 0.98


def test_the_evidence_prefers_a_prior_that_fits() -> None:
    rows = family(dense=1.2, launch=0.9)
    far = replace(PRIOR, centre=(3.0,) * len(PARTS))
    assert Calibration(rows, PRIOR).log_evidence > Calibration(rows, far).log_evidence + 5


def test_a_row_of_ones_own_is_believed_however_far_it_lies() -> None:
    """Ten times what is published: an odd publication is left aside, a user's own device is not."""
    query = network(4.0, kind=50.0)
    odd, own = Observation(query, 120.0), Observation(query, 120.0, 0.03)
    doubted, believed = (Calibration([*family(3.0, 0.4), row], PRIOR).estimate(query).log_ms for row in (odd, own))
    assert math.exp(doubted) < 60
    assert math.exp(believed) > 80
