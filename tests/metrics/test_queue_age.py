"""Ages of keys, against a queue that is played through."""

import pytest

from ssl_video.metrics.queue_age import queue_ages


@pytest.mark.parametrize(
    ("length", "per_step", "steps"), [(512, 48, 40), (512, 48, 3), (10, 10, 5), (7, 20, 4), (9, 4, 9)]
)
def test_ages_are_those_of_a_queue_played_through(length: int, per_step: int, steps: int) -> None:
    queue: list[int] = []
    for step in range(steps):
        queue = (queue + [step] * per_step)[-length:]
    ages = [steps - 1 - made for made in queue]
    assert queue_ages(len(queue), keys_per_step=per_step) == (max(ages), pytest.approx(sum(ages) / len(ages)))


def test_an_empty_queue_has_no_age_and_no_rate_is_refused() -> None:
    assert queue_ages(0, keys_per_step=4) == (0, 0)
    with pytest.raises(ValueError, match="must be above 0"):
        queue_ages(3, keys_per_step=0)
