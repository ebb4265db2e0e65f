"""When which loss counts: a run as a sequence of phases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

PhaseUnit = Literal["epochs", "share"]


@dataclass(frozen=True)
class Phase:
    """A part of the run.

    Attributes:
        start: where it begins, in epochs or as a share of the run; it ends where the next one begins.
        weights: of the losses, by name; one that is not named is off.
    """

    start: float
    weights: Mapping[str, float]


def weights_at(step: int, phases: Sequence[Phase], *, unit_steps: int) -> Mapping[str, float]:
    """Weights of the losses at an optimizer step.

    Args:
        step: from 0.
        phases: in order, the first from 0 on.
        unit_steps: optimizer steps of one unit of ``Phase.start``: of an epoch, or of the whole run.

    Raises:
        ValueError: the first phase doesn't begin with the run, or one begins before the one in front of it.
    """
    starts = [phase.start for phase in phases]
    if not starts or starts[0] != 0 or starts != sorted(starts):
        raise ValueError(f"phases start at {starts}; the first must start at 0, the others in order.")
    return [phase for phase in phases if step >= round(phase.start * unit_steps)][-1].weights
