"""How much a number varies from step to step."""

from torch import Tensor


def relative_spread(values: Tensor) -> float:
    """Return the standard deviation of ``[N]`` values over the size of their mean; infinite where that is 0.

    A loss that learns, or that merely sees other videos in each step, varies by some hundredths; one that no longer
    depends on its input hardly at all.
    """
    own = values.double()
    return float(own.std(correction=0) / own.mean().abs()) if bool(own.mean() != 0) else float("inf")
