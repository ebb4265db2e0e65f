"""Phases switch at their step, neither before nor after."""

import pytest

from ssl_video.semi.phases import Phase, weights_at

TCL = [Phase(0, {"sup": 1.0}), Phase(50, {"sup": 1.0, "instance": 9.0}), Phase(350, {"sup": 1.0, "pseudo": 1.0})]


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize(
    ("epoch", "names"),
    [(0, {"sup"}), (49, {"sup"}), (50, {"sup", "instance"}), (349, {"sup", "instance"}), (350, {"sup", "pseudo"})],
)
def test_epochs(epoch: int, names: set[str], steps_per_epoch: int) -> None:
    for step in (epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1):
        assert set(weights_at(step, TCL, unit_steps=steps_per_epoch)) == names


def test_shares_of_the_run() -> None:
    phases = [Phase(0.0, {"a": 1.0}), Phase(0.125, {"b": 2.0})]
    assert weights_at(99, phases, unit_steps=800) == {"a": 1.0}
    assert weights_at(100, phases, unit_steps=800) == {"b": 2.0}
    assert weights_at(799, phases, unit_steps=800) == {"b": 2.0}


def test_a_phase_of_no_length_never_comes() -> None:
    phases = [Phase(0, {"a": 1.0}), Phase(0, {"b": 1.0})]
    assert weights_at(0, phases, unit_steps=10) == {"b": 1.0}


def test_disorder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"phases start at \[1\]"):
        weights_at(0, [Phase(1, {})], unit_steps=1)
    with pytest.raises(ValueError, match="others in order"):
        weights_at(0, [Phase(0, {}), Phase(3, {}), Phase(2, {})], unit_steps=1)
