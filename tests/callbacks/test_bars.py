"""Bars: when one is crossed, what is said, and what is refused."""

import pytest

from ssl_video.callbacks.bars import ADVICE, Bar, BarWatch, read_bars
from ssl_video.utils.errors import InputError

STD = "health/feature_std"


def crossed(bar: Bar, *values: float, every: int = 10) -> list[int]:
    """Steps at which a bar is told, measured every so many."""
    watch = BarWatch([bar])
    return [every * place for place, value in enumerate(values, 1) if watch.look({STD: value}, step=every * place)]


@pytest.mark.parametrize(
    ("bar", "values", "told"),
    [
        (Bar(STD, below=0.5), (0.6, 0.4, 0.3), [20]),
        (Bar(STD, above=0.5), (0.5, 0.51), [20]),
        (Bar(STD, below=0.1, above=0.5), (0.3, 0.05), [20]),
        (Bar(STD, below=0.5, from_step=25), (0.4, 0.4, 0.4), [30]),
        (Bar(STD, below=0.5, in_a_row=2), (0.4, 0.6, 0.4, 0.4), [40]),
        (Bar(STD, below=0.5), (float("nan"),), [10]),
        (Bar(STD, below=0.5, action="stop"), (0.4, 0.4), [10, 20]),
        (Bar(STD, below=0.5, action="off"), (0.4,), []),
    ],
)
def test_when_a_bar_is_told(bar: Bar, values: tuple[float, ...], told: list[int]) -> None:
    assert crossed(bar, *values) == told


def test_what_is_told() -> None:
    [(_, told)] = BarWatch([Bar(STD, below=0.05)]).look({STD: 0.00123, "health/other": 0.0}, step=150)
    assert told.startswith("health/feature_std is 0.00123 after step 150, below the bar of 0.05. Usually all clips get")
    assert "lower optimizer.lr" in told
    assert told.endswith("(The bar: callbacks.health.bars.health_feature_std.)")


def test_a_resumed_run_does_not_repeat_a_warning() -> None:
    first = BarWatch([Bar(STD, below=0.5), Bar("health/gradient_norm", above=5, in_a_row=2)])
    assert first.look({STD: 0.1, "health/gradient_norm": 6}, step=1)
    second = BarWatch([Bar(STD, below=0.5), Bar("health/gradient_norm", above=5, in_a_row=2)])
    second.load_state_dict(first.state_dict())
    [(bar, _)] = second.look({STD: 0.1, "health/gradient_norm": 6}, step=2)
    assert bar.value == "health/gradient_norm"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"health_feature_sdt": {"below": 1}},
            "there is no such value; there are data_decode_failures_share, ",
        ),
        ({"health_feature_std": {"under": 1}}, "a bar has no such key; it has below, above"),
        ({"health_feature_std": {}}, "a bar needs below= or above="),
        ({"health_feature_std": {"below": 1, "action": "end"}}, "action=end must be off, warn or stop"),
        ({"health_feature_std": {"below": 1, "in_a_row": 0}}, "in_a_row=0 must be at least 1"),
    ],
)
def test_what_is_refused(given: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_bars(given)


def test_every_value_with_advice_can_have_a_bar() -> None:
    bars = read_bars({name.replace("/", "_"): {"below": 0} for name in ADVICE})
    assert [bar.value for bar in bars] == list(ADVICE)
