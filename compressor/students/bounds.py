"""What a candidate may cost at most, who says so, and how far it is from that, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from compressor.report import text
from compressor.students.search_record import StudentLimits

Quantity = Literal["latency_ms", "size_mib", "params_m", "macs_g", "memory_gib"]
Costs: TypeAlias = Mapping[Quantity, float]
"""What is known of a candidate; a quantity that is not known misses nothing."""

# A limit is the user's, a wish the target's; half of the teacher's MACs is the rule where nothing else decides.
Source = Literal["limit", "wish", "half", "teacher", "device"]

_SPELLED: Mapping[Quantity, Callable[[float], str]] = {
    "latency_ms": lambda value: f"{text.significant(value)} ms",
    "size_mib": text.size,
    "params_m": lambda value: f"{text.params(value)} parameters",
    "macs_g": lambda value: f"{text.macs(value)} MACs",
    "memory_gib": lambda value: f"{text.significant(value)} GiB of weights and activations",
}
_UNITS: Mapping[Quantity, str] = {
    "latency_ms": "ms",
    "size_mib": "MiB",
    "params_m": "M parameters",
    "macs_g": "G MACs",
    "memory_gib": "GiB of weights and activations",
}
DIGITS, MOST_DIGITS = 3, 17  # with seventeen any two numbers differ
PREDICTED_DIGITS = 2  # that a prediction is worth


@dataclass(frozen=True)
class Bound:
    """The most that a candidate may cost in one quantity.

    Attributes:
        most: in the unit of the quantity.
        source: who says so.
    """

    quantity: Quantity
    most: float
    source: Source

    @property
    def hard(self) -> bool:
        """Whether nothing may miss it; wishes and the rule are given up where nothing holds them."""
        return self.source in ("limit", "teacher", "device")

    def excess(self, costs: Costs) -> float:
        """Cost over bound: above 1 is missed. 0 where the cost is not known."""
        return costs.get(self.quantity, 0.0) / self.most

    def missed(self, costs: Costs) -> bool:
        """Whether a candidate is known to cost more."""
        return self.excess(costs) > 1.0

    def words(self, costs: Costs, how: str = "") -> str:
        """What was missed: `≈4.1 ms predicted, above the limit of 2.50 ms`; `how` is the latency's origin."""
        cost, most = self.side_by_side(costs, how)
        return f"{cost}, {self._above(most)}"

    def within(self, costs: Costs, how: str = "") -> str:
        """What is held: `≈0.72 ms predicted, 33.3 ms allowed`."""
        cost, most = self.side_by_side(costs, how)
        return f"{cost}, {most} allowed"

    def side_by_side(self, costs: Costs, how: str) -> tuple[str, str]:
        """Cost and bound, in as many digits as show which is larger."""
        digits, value = self.digits(costs), costs[self.quantity]
        most = spelled(self.quantity, self.most, digits)
        if self.quantity == "latency_ms" and how:
            return latency_spelled(value, how, digits, beside_ms=float(f"{self.most:.{digits}g}")), most
        return spelled(self.quantity, value, digits), most

    def digits(self, costs: Costs) -> int:
        """How many significant digits tell the cost from the bound; three do unless they are very close."""
        pair = costs[self.quantity], self.most
        if pair[0] == pair[1]:
            return DIGITS
        apart = (n for n in range(DIGITS, MOST_DIGITS) if len({spelled(self.quantity, one, n) for one in pair}) == 2)
        return next(apart, MOST_DIGITS)

    def _above(self, most: str) -> str:
        match self.source:
            case "limit":
                return f"above the limit of {most}"
            case "wish":
                return f"above the target's wish of {most}"
            case "half":
                return "above half of the teacher's"
            case "teacher":
                return "no fewer than the teacher's"
            case "device":
                return f"above the target's {most.partition(' ')[0]} GiB of memory"

    def __str__(self) -> str:
        return spelled(self.quantity, self.most)


def spelled(quantity: Quantity, value: float, digits: int = DIGITS) -> str:
    """A cost with its unit; with more than three digits always in the unit of the quantity."""
    if digits == DIGITS:
        return _SPELLED[quantity](value)
    return f"{text.significant(value, digits)} {_UNITS[quantity]}"


def latency_spelled(value_ms: float, origin: str, digits: int = DIGITS, beside_ms: float | None = None) -> str:
    """`1.92 ms measured`, `≈1.9 ms predicted`; a prediction has more digits where they tell it from `beside_ms`."""
    if origin != "predicted":
        return f"{spelled('latency_ms', value_ms, digits)} {origin}"
    if beside_ms is None:
        return f"≈{text.significant(value_ms, PREDICTED_DIGITS)} ms predicted"
    return f"≈{text.beside(value_ms, beside_ms, PREDICTED_DIGITS)} ms predicted"


def bounds_of(limits: StudentLimits, source: Literal["limit", "wish"]) -> tuple[Bound, ...]:
    """One bound for each limit that is set."""
    pairs: tuple[tuple[Quantity, float | None], ...] = (
        ("latency_ms", limits.max_latency_ms),
        ("size_mib", limits.max_size_mib),
        ("params_m", limits.max_params_m),
    )
    return tuple(Bound(quantity, most, source) for quantity, most in pairs if most is not None)


def wished(wishes: StudentLimits, limits: StudentLimits) -> tuple[Bound, ...]:
    """The target's wishes where the user has set no limit."""
    given = {bound.quantity for bound in bounds_of(limits, "limit")}
    return tuple(bound for bound in bounds_of(wishes, "wish") if bound.quantity not in given)
