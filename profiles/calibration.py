"""Efficiencies of devices from measured latencies: a hierarchical model on log latency, solved in closed steps.

    log latency = log( sum over parts of e^x[part, condition] * ideal[part] ) + discrepancy + noise

A condition is a device at a precision. Its factors x are Gaussian around a common centre; what they share is the sum of
independent shifts, so that a condition without measurements of its own leans on its device, then on its architecture,
then on its precision, then on all others:

    x[part, condition] = centre + common + by precision + by architecture + by device + by condition + slope * balance

with one set of shifts for each part. `balance` is log(peak / bandwidth): the more arithmetic a device has for each
byte, the less of it a network reaches (arithmetic parts only). The fixed part has one more shift, by who measured: a
Python loop around an engine adds to every inference what the engine's own timer never sees. More ties measurements
together than their factors: networks of a like mix of kernels err alike (`discrepancy`, falling with the distance of
their mixes, partly on all devices and partly on each), and so do measurements of one campaign, since a publication has
one way to measure.

The posterior comes from Gauss-Newton steps on the linearised model, each a Gaussian-process regression over the
measurements: exact in the Gaussian part, and small (one N x N solve). Noise is Student-t, so that a single odd row
cannot bend a device: its weight falls with its residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.roofline import PARTS, Vector

ARITHMETIC_PARTS = 4  # the first of PARTS
NOISE_DEGREES = 4.0  # of freedom: heavy tails, with a finite variance
STEPS = 100
TRUST_STEPS = 30
DAMPING = 0.6  # full steps overshoot to and fro, since parts compete for the same latency
LARGEST_STEP = 1.5  # in log units; the model is far from linear beyond
TOLERANCE = 3e-3


@dataclass(frozen=True)
class Prior:
    """Standard deviations in log units (0.1 is about 10 %), each of one independent shift."""

    centre: tuple[float, ...]
    common_sd: float
    precision_sd: float
    architecture_sd: float
    device_sd: float
    condition_sd: float
    balance_sd: float
    mix_sd: float
    mix_on_device_sd: float
    mix_length: float
    network_sd: float
    campaign_sd: float
    harness_sd: float
    noise_sd: float


@dataclass(frozen=True)
class Condition:
    """A device at a precision, and who measured it; `balance` is log(operations a byte), relative to a fixed device."""

    device: str
    architecture: str
    precision: str
    balance: float
    campaign: str


@dataclass(frozen=True)
class Network:
    """A network on a condition: `ideal_ms` (8,) as in `PARTS`, and its mix of kernels (K,).

    Equal names mean the same network, which errs in the same way on every device.
    """

    condition: Condition
    ideal_ms: tuple[float, ...]
    mix: tuple[float, ...]
    name: str


@dataclass(frozen=True)
class Observation:
    """A measured network. A row with a `noise_sd` of its own is trusted: its noise is Gaussian, not heavy-tailed."""

    network: Network
    latency_ms: float
    noise_sd: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Log of the latency in milliseconds, its standard deviation, and the latency's parts in milliseconds."""

    log_ms: float
    sd: float
    parts_ms: dict[str, float]


class Calibration:
    """The posterior given observations, for the conditions that they and later queries have.

    Attributes:
        log_evidence: of the observations, linearised at the solution; compares priors on the same observations.
    """

    def __init__(self, observations: Sequence[Observation], prior: Prior, *, also: Sequence[Condition] = ()) -> None:
        self._prior = prior
        self._networks = [observation.network for observation in observations]
        conditions = dict.fromkeys([*(network.condition for network in self._networks), *also])
        self._index = {condition: number for number, condition in enumerate(conditions)}
        self._covariance = _between_conditions(list(conditions), prior)
        self._centre = np.tile(np.asarray(prior.centre), (len(conditions), 1))
        self._solve(observations)

    def estimate(self, network: Network) -> Estimate:
        """The latency of a network on one of the conditions. Noise of a single measurement is part of its spread."""
        rows = self._rows_of([network])
        latency_log, shares = self._linear([network], rows)
        cross = _tied(shares, self._shares, self._covariance[:, rows][:, :, self._rows])
        cross += _discrepancy([network], self._networks, self._prior)
        own = _tied(shares, shares, self._covariance[:, rows][:, :, rows])
        own += _discrepancy([network], [network], self._prior)
        log_ms = latency_log - self._shift(shares, rows) + cross @ self._weights
        variance = own + self._prior.noise_sd**2 - cross @ np.linalg.solve(self._total, cross.T)
        total = math.exp(float(log_ms[0]))
        parts = {part: total * float(share) for part, share in zip(PARTS, shares[0], strict=True)}
        return Estimate(float(log_ms[0]), math.sqrt(float(variance[0, 0])), parts)

    def _solve(self, observations: Sequence[Observation]) -> None:
        prior = self._prior
        target = np.log([observation.latency_ms for observation in observations])
        noise = np.array([observation.noise_sd or prior.noise_sd for observation in observations]) ** 2
        own = np.array([observation.noise_sd is not None for observation in observations])
        fixed = _discrepancy(self._networks, self._networks, prior)
        trust = np.ones(len(target))
        self._rows = self._rows_of(self._networks)
        between = self._covariance[:, self._rows][:, :, self._rows]
        self._factors = self._centre
        for step in range(STEPS):
            latency_log, self._shares = self._linear(self._networks, self._rows)
            self._total = _tied(self._shares, self._shares, between) + fixed + np.diag(noise / trust)
            residual = target - latency_log + self._shift(self._shares, self._rows)
            self._weights = np.asarray(np.linalg.solve(self._total, residual), dtype=np.float64)
            # x = centre + C J' (J C J' + R)^-1 residual, part by part: C is block diagonal over parts.
            pulled = np.zeros_like(self._factors)
            np.add.at(pulled, self._rows, self._shares * self._weights[:, None])
            change = self._centre + np.einsum("pab,bp->ap", self._covariance, pulled) - self._factors
            largest = float(np.abs(change).max(initial=0.0))
            if largest < TOLERANCE and step > 5:
                break
            self._factors = self._factors + change * min(DAMPING, LARGEST_STEP / max(largest, 1e-9))
            if step >= 3:  # the first steps are too far off to call a row odd
                trust = np.where(own, 1.0, _trust(self._total, self._weights, noise, trust))
        self.log_evidence = _log_evidence(self._total, residual, trust)

    def _rows_of(self, networks: Sequence[Network]) -> NDArray[np.intp]:
        return np.array([self._index[network.condition] for network in networks], dtype=np.intp)

    def _linear(self, networks: Sequence[Network], rows: NDArray[np.intp]) -> tuple[Vector, Vector]:
        """log latency (N,) and its derivatives by the factors of its condition, the shares of the parts (N, 8)."""
        parts = np.exp(self._factors[rows]) * np.array([network.ideal_ms for network in networks])
        total = parts.sum(axis=1, keepdims=True)
        return np.log(total[:, 0]), parts / total

    def _shift(self, shares: Vector, rows: NDArray[np.intp]) -> Vector:
        """What the factors' distance from their centre adds to the linearised log latency, (N,)."""
        return np.asarray((shares * (self._factors - self._centre)[rows]).sum(axis=1))


def _between_conditions(conditions: Sequence[Condition], prior: Prior) -> Vector:
    """Prior covariance of the factors of each part, (8, conditions, conditions)."""

    def same(name: str) -> Vector:
        values = np.array([getattr(condition, name) for condition in conditions])
        return np.asarray(values[:, None] == values[None, :], dtype=np.float64)

    on_device, at_precision = same("device"), same("precision")
    shared = (
        prior.common_sd**2
        + prior.precision_sd**2 * at_precision
        + prior.architecture_sd**2 * same("architecture")
        + prior.device_sd**2 * on_device
        + prior.condition_sd**2 * on_device * at_precision
    )
    balance = np.array([condition.balance for condition in conditions])
    covariance = np.repeat(shared[None], len(PARTS), axis=0)
    covariance[:ARITHMETIC_PARTS] += prior.balance_sd**2 * np.outer(balance, balance)
    covariance[PARTS.index("fixed")] += prior.harness_sd**2 * on_device * same("campaign")
    return covariance


def _tied(shares_a: Vector, shares_b: Vector, covariance: Vector) -> Vector:
    """Covariance of log latencies through the factors, (A, B); `covariance` (8, A, B) is that of their conditions."""
    return np.asarray((shares_a.T[:, :, None] * shares_b.T[:, None, :] * covariance).sum(axis=0))


def _discrepancy(first: Sequence[Network], second: Sequence[Network], prior: Prior) -> Vector:
    """Covariance of what the parts cannot explain, (A, B)."""

    def same(key: Callable[[Network], str]) -> NDArray[np.bool_]:
        a, b = (np.array([key(network) for network in networks]) for networks in (first, second))
        return np.asarray(a[:, None] == b[None, :])

    a, b = (np.array([network.mix for network in networks]) for networks in (first, second))
    near = np.exp(-((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2) / (2 * prior.mix_length**2))
    on_device = same(lambda network: network.condition.device)
    return np.asarray(
        (prior.mix_sd**2 + prior.mix_on_device_sd**2 * on_device) * near
        + prior.network_sd**2 * same(lambda network: network.name)
        + prior.campaign_sd**2 * (on_device & same(lambda network: network.condition.campaign))
    )


def _trust(total: Vector, weights: Vector, noise: Vector, trust: Vector) -> Vector:
    """Each row's precision as a share of what its noise says, (N,): the most probable under Student's t, as seen from
    all other rows. A row that disagrees with them by much more than its noise gets little.
    """
    alone = 1 / np.diag(np.linalg.inv(total))  # variance of the row given all others
    apart = weights * alone
    others = np.maximum(alone - noise / trust, 0.0)
    for _ in range(TRUST_STEPS):
        own = noise / trust
        trust = (NOISE_DEGREES + 1) / (NOISE_DEGREES + (apart * own / (others + own)) ** 2 / noise)
    return trust


def _log_evidence(total: Vector, residual: Vector, trust: Vector) -> float:
    """log N(residual; 0, total), with the density of the rows' trust under Student's t as a scale mixture."""
    triangle = np.linalg.cholesky(total)
    white = np.linalg.solve(triangle, residual)
    half = NOISE_DEGREES / 2
    mixture = (half - 1) * np.log(trust) - half * trust + half * math.log(half) - math.lgamma(half)
    gaussian = -0.5 * white @ white - np.log(np.diag(triangle)).sum() - 0.5 * len(residual) * math.log(2 * math.pi)
    return float(gaussian + mixture.sum())
