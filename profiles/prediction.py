"""What a prediction says, and what a user's own measurement is to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from profiles.schema import Precision

if TYPE_CHECKING:
    from profiles.kernels import Kernel

Basis = Literal["calibrated", "transferred", "roofline"]


class Prediction(BaseModel):
    """A latency that nobody measured, and what carries it. Times are of one call, which takes a whole batch.

    Attributes:
        basis: 'calibrated' on measurements of this device at this precision; 'transferred' from the device's other
            precisions or from its architecture; 'roofline': from its peaks and what devices reach on average.
        anchors: the measurements that lie nearest, in words; the user's own come first.
        num_measurements: of this device at any precision.
        doubts: what was extrapolated, in sentences; each has widened the interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Literal["predicted"] = "predicted"
    device: str
    precision: Precision
    batch_size: int
    latency_p50_ms: float
    latency_p50_interval_ms: tuple[float, float]
    interval_confidence: float
    basis: Basis
    anchors: tuple[str, ...]
    num_measurements: int
    doubts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Anchor:
    """A measurement of the user's own, on the very device of the prediction and of a network like it.

    `kernels` are those of the whole batch; `source` says in words what was measured and where it stands.
    """

    kernels: tuple[Kernel, ...]
    precision: Precision
    batch_size: int
    latency_p50_ms: float
    source: str
