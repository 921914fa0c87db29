"""How long a network would take on a device that is not at hand, with an interval and with what it rests on.

    kernels of the network --roofline--> ideal parts --calibration on measured networks--> latency, interval, doubts

The factors between ideal and real come from the published measurements in `measurements.csv` and from the user's own
(`Anchor`); see `profiles.calibration`. A device without measurements leans on its architecture, and its interval is
wider. Nothing is extrapolated silently: a kind of kernel, a size, a batch or a power mode that nobody measured stands
in `doubts`. docs/latency-prediction.md has the method and its errors on networks that were left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from profiles.calibration import Calibration, Condition, Network, Observation, Prior
from profiles.doubts import Carriers, doubts_of
from profiles.kernels import Kernel
from profiles.measured_rows import (
    OWN,
    MeasuredRow,
    condition_of,
    described_mode,
    network_on,
    own_row,
    published_rows_for,
)
from profiles.prediction import Anchor, Basis, Prediction
from profiles.roofline import PredictionRefused
from profiles.schema import DeviceProfile, Precision

__all__ = ["Anchor", "Prediction", "PredictionRefused", "expected_parts_ms", "predict_latency"]

INTERVAL_CONFIDENCE = 0.9
INTERVAL_FACTOR = 1.645  # posterior deviations to either side: the Gaussian's; the benchmark checks what it covers
NUM_NEAREST = 3

# Chosen by the evidence of all published rows from a prior that was stated beforehand: benchmarks/latency_prior.py says
# what each number means and how it was chosen, and the benchmark chooses again without the rows that it predicts.
CENTRE = tuple(math.log(value) for value in (2.5, 3.0, 6.0, 4.0, 1.5, 4.0, 1.0, 2.0))
GPU_PRIOR = Prior(
    centre=CENTRE,
    common_sd=0.7,
    precision_sd=0.19,
    architecture_sd=0.2,
    device_sd=0.3,
    condition_sd=0.12,
    balance_sd=0.2,
    mix_sd=0.047,
    mix_on_device_sd=0.05,
    mix_length=0.26,
    network_sd=0.019,
    campaign_sd=0.06,
    harness_sd=1.1,
    noise_sd=0.037,
)
CPU_PRIOR = Prior(
    centre=CENTRE,
    common_sd=0.69,
    precision_sd=0.3,
    architecture_sd=0.2,
    device_sd=0.3,
    condition_sd=0.2,
    balance_sd=0.2,
    mix_sd=0.19,
    mix_on_device_sd=0.05,
    mix_length=0.1,
    network_sd=0.05,
    campaign_sd=0.06,
    harness_sd=0.7,
    noise_sd=0.094,
)


def predict_latency(
    kernels: Sequence[Kernel],
    profile: DeviceProfile,
    precision: Precision,
    *,
    batch_size: int = 1,
    anchors: Sequence[Anchor] = (),
) -> Prediction:
    """The latency of one inference on the device, from the kernels of the whole batch.

    Anchors weigh most: the user measured them in the same way, and on the very device.

    Raises:
        PredictionRefused: the device is this host, the precision is not among the profile's, or a peak is missing.
    """
    _refuse_guesses(profile, precision)
    own = [own_row(anchor, profile) for anchor in anchors]
    network = network_on(kernels, profile, precision, campaign=OWN)
    estimate = _calibration(profile.kind, network.condition, tuple(row.observation for row in own)).estimate(network)

    published = published_rows_for(profile.kind)
    here = [*own, *(row for row in published if row.condition.device == network.condition.device)]
    relatives = [row for row in published if row.condition.architecture == network.condition.architecture]
    basis = _basis(network.condition, here, relatives)
    carriers = _carriers(profile, here, relatives, published)
    doubts, variance = doubts_of(kernels, profile, precision, batch_size, basis, estimate.parts_ms, here, carriers)
    half = INTERVAL_FACTOR * math.sqrt(estimate.sd**2 + variance)
    return Prediction(
        device=profile.title,
        precision=precision,
        batch_size=batch_size,
        latency_p50_ms=math.exp(estimate.log_ms),
        latency_p50_interval_ms=(math.exp(estimate.log_ms - half), math.exp(estimate.log_ms + half)),
        interval_confidence=INTERVAL_CONFIDENCE,
        basis=basis,
        anchors=_nearest(network, here or relatives),
        num_measurements=len(here),
        doubts=doubts,
    )


def expected_parts_ms(
    kernels: Sequence[Kernel], profile: DeviceProfile, precision: Precision, *, anchors: Sequence[Anchor] = ()
) -> dict[str, float]:
    """The predicted latency split into `roofline.PARTS`, in milliseconds; raises what `predict_latency` does."""
    _refuse_guesses(profile, precision)
    own = tuple(own_row(anchor, profile).observation for anchor in anchors)
    network = network_on(kernels, profile, precision, campaign=OWN)
    return _calibration(profile.kind, network.condition, own).estimate(network).parts_ms


@lru_cache(maxsize=64)
def _calibration(kind: str, condition: Condition, own: tuple[Observation, ...]) -> Calibration:
    published = (row.observation for row in published_rows_for(kind))
    prior = CPU_PRIOR if kind == "cpu" else GPU_PRIOR
    return Calibration([*published, *own], prior, also=[condition])


def _refuse_guesses(profile: DeviceProfile, precision: Precision) -> None:
    if profile.this_host:
        raise PredictionRefused(
            f"A latency on {profile.title} was to be predicted.",
            "What can be measured here is not predicted.",
            "Measure it with `compress profile` on this machine.",
        )
    if precision not in profile.precisions:
        raise PredictionRefused(
            f"A latency in {precision} was to be predicted for {profile.title}.",
            f"It runs {', '.join(profile.precisions)}.",
            "Choose one of these precisions.",
        )
    condition_of(profile, precision, campaign=OWN)  # refuses where a peak or the bandwidth is missing


def _basis(condition: Condition, here: Sequence[MeasuredRow], relatives: Sequence[MeasuredRow]) -> Basis:
    if any(row.condition.precision == condition.precision for row in here):
        return "calibrated"
    return "transferred" if here or relatives else "roofline"


def _carriers(
    profile: DeviceProfile,
    here: Sequence[MeasuredRow],
    relatives: Sequence[MeasuredRow],
    published: Sequence[MeasuredRow],
) -> Carriers:
    """What was measured nearest to the device: on it, on the shipped one that its profile extends, on its architecture,
    anywhere.
    """
    base = [row for row in published if row.condition.device == profile.extends]
    places = (
        (here, "this device"),
        (base, f"{profile.extends}, which it extends"),
        (relatives, "devices of its architecture"),
        (published, "other devices"),
    )
    rows, where = next((rows, where) for rows, where in places if rows)
    named = [row.power_mode for row in rows] if rows is here or rows is base else [described_mode(profile)]
    return Carriers(rows, where, frozenset(mode for mode in named if mode))


def _nearest(network: Network, rows: Sequence[MeasuredRow]) -> tuple[str, ...]:
    """The measurements next to the network in words: the user's own, then those at its precision, then the closest in
    the mix of kernels and in size (a factor of two in size counts as much as a mix 0.2 away).
    """

    def distance(row: MeasuredRow) -> tuple[bool, bool, float]:
        other = row.observation.network
        size = abs(math.log2(math.fsum(other.ideal_ms) / math.fsum(network.ideal_ms)))
        return (
            other.condition.campaign != OWN,
            other.condition.precision != network.condition.precision,
            math.dist(other.mix, network.mix) + 0.2 * size,
        )

    return tuple(row.words for row in sorted(rows, key=distance)[:NUM_NEAREST])
