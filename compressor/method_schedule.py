"""A training cut to the time that there is: all phases by the same factor, and none longer than its effort has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

LEAST = 0.02  # of each phase's steps at effort quick: below, what comes out is hardly a trained student
LITTLE = 0.25  # of the effort's own steps: below, a warning


@dataclass(frozen=True)
class Schedule:
    """How many steps each phase takes.

    Attributes:
        whole: steps by phase, before the cut.
        fixed: phases whose steps the user has named; they are not cut.
        factor: of all others, in (0, 1].
    """

    whole: Mapping[str, int]
    fixed: frozenset[str]
    factor: float

    @property
    def steps(self) -> dict[str, int]:
        """Steps by phase. A phase that has any keeps at least one."""
        return {
            phase: count if phase in self.fixed else min(count, max(1, int(count * self.factor)))
            for phase, count in self.whole.items()
        }

    @property
    def cut(self) -> bool:
        return self.steps != dict(self.whole)

    def at_least(self, quick: Mapping[str, int]) -> Schedule:
        """The shortest schedule that is worth training: LEAST of the steps of effort `quick` in each phase."""
        shares = [LEAST * quick[phase] / count for phase, count in self.whole.items() if self._cuttable(phase)]
        return Schedule(self.whole, self.fixed, min(1.0, max(shares, default=1.0)))

    def within(self, seconds: float, step_seconds: Mapping[str, float]) -> Schedule:
        """As much of it as takes at most so many seconds, which may be too little to be worth anything.

        Where nothing may be cut, nothing is, whatever it takes.

        Args:
            step_seconds: by phase; a phase that is not there takes no time.
        """
        costs = {phase: count * step_seconds.get(phase, 0.0) for phase, count in self.whole.items()}
        ours = sum(cost for phase, cost in costs.items() if self._cuttable(phase))
        left = seconds - sum(cost for phase, cost in costs.items() if not self._cuttable(phase))
        factor = 1.0 if ours <= max(left, 0.0) else max(0.0, left / ours)
        return Schedule(self.whole, self.fixed, factor)

    def _cuttable(self, phase: str) -> bool:
        return phase not in self.fixed and self.whole[phase] > 0


def whole_schedule(steps: Mapping[str, int], fixed: Collection[str]) -> Schedule:
    """A schedule before any cut."""
    return Schedule(dict(steps), frozenset(fixed) & steps.keys(), 1.0)
