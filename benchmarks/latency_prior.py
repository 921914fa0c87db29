"""How much devices and networks differ: the prior of the latency calibration, chosen by the evidence of measurements.

The stated prior is a judgement from before any row was predicted. Centres are costs as multiples of the ideal: networks
reach about 40 % of the dense peak, less with 1x1 windows and little with grouped ones; starting a kernel takes some
4,000 cycles, an inference 0.2 ms. All devices together may be off by a factor of two, a device or a precision by a
third, one device at one precision by a fifth. Networks of one family err alike by 12 %, a publication by 6 %. Families
lie apart in their mixes of kernels by more than 0.2, their members by less: hence the length.

The harness was stated later, after residuals had shown its need: what a publication's way of measuring adds doubles
the fixed cost or halves it. It stayed because the log evidence of the GPUs' rows rose from -39.1 to -33.8, each with
its own chosen prior.

Centres stay. Each deviation moves where that makes the measurements more probable, against a log-normal hyperprior that
pulls it back to what was stated. No latency is predicted on the way, so nothing is tuned to a prediction; and whoever
leaves rows out chooses without them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from profiles.calibration import Calibration, Observation, Prior
from profiles.predict import CENTRE

STATED = Prior(
    centre=CENTRE,
    common_sd=0.7,
    precision_sd=0.3,
    architecture_sd=0.2,
    device_sd=0.3,
    condition_sd=0.2,
    balance_sd=0.2,
    mix_sd=0.12,
    mix_on_device_sd=0.08,
    mix_length=0.1,
    network_sd=0.05,
    campaign_sd=0.06,
    harness_sd=0.7,
    noise_sd=0.06,
)
DEVIATIONS = tuple(item.name for item in fields(Prior) if item.name != "centre")
HYPERPRIOR_SD = 0.5  # log units: within a factor of e either way is 95 %
STEPS = (1.6, 1 / 1.6)
ROUNDS = 3
GAIN = 0.5  # of log evidence, below which a round was the last one


def chosen_prior(observations: Sequence[Observation]) -> Prior:
    """The prior with the highest evidence, by coordinate steps from the stated one; two digits, deterministic."""
    prior, best = STATED, _score(STATED, observations)
    for _ in range(ROUNDS):
        before = best
        for name in DEVIATIONS:
            for step in STEPS:
                while True:
                    change: dict[str, Any] = {name: float(f"{getattr(prior, name) * step:.2g}")}
                    moved = replace(prior, **change)
                    score = _score(moved, observations)
                    if score <= best:
                        break
                    prior, best = moved, score
        if best - before < GAIN:
            break
    return prior


def _score(prior: Prior, observations: Sequence[Observation]) -> float:
    moved = (math.log(getattr(prior, name) / getattr(STATED, name)) for name in DEVIATIONS)
    hyperprior = -0.5 * math.fsum((distance / HYPERPRIOR_SD) ** 2 for distance in moved)
    return Calibration(observations, prior).log_evidence + hyperprior
