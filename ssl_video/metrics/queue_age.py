"""How old the keys of a queue are."""

import math


def queue_ages(num_keys: int, *, keys_per_step: float) -> tuple[float, float]:
    """Return how many steps ago the oldest key of a queue was made, and its keys in the mean.

    Those of the step that was just done are 0 steps old.

    Args:
        num_keys: that the queue holds, without the noise it begins with.
        keys_per_step: that have been added in each step, above 0.
    """
    if keys_per_step <= 0:
        raise ValueError(f"keys_per_step={keys_per_step} must be above 0; a queue that gets no keys has no age.")
    if num_keys < 1:
        return 0.0, 0.0
    steps = num_keys / keys_per_step
    oldest = math.ceil(steps) - 1
    # All steps but the oldest have all their keys in the queue.
    inner = oldest * (oldest - 1) / 2 * keys_per_step
    return float(oldest), (inner + oldest * (num_keys - oldest * keys_per_step)) / num_keys
