import resource

import numpy as np
import pytest
import torch

from ssl_video.evaluation.clips import NORMAL, ClipSpec
from ssl_video.evaluation.feature_statistics import FeatureStatistics
from ssl_video.evaluation.features import FeatureSet
from ssl_video.metrics.rank import effective_rank, rankme
from ssl_video.metrics.uniformity import direction_std, mean_cosine, uniformity
from ssl_video.utils.errors import InputError
from support.features import feature_set


def of(features: torch.Tensor) -> FeatureSet:
    """Videos without labels."""
    number = len(features)
    return FeatureSet(features, torch.full((number,), -1), [f"video_{row}" for row in range(number)], [None] * number)


def test_each_metric_is_its_function_of_the_test_videos() -> None:
    train, test = of(torch.randn(9, 3, 6)), of(torch.randn(40, 3, 6) + 0.5)
    result = FeatureStatistics()(train, test, num_classes=0)
    means = test.features.double().mean(dim=1)
    std = direction_std(means)
    assert result.metrics == {
        "alignment": pytest.approx(float(result.per_video["alignment"].mean())),
        "uniformity": uniformity(means),
        "rankme": rankme(means),
        "effective_rank": effective_rank(means),
        "mean_cosine": mean_cosine(means),
        "std_mean": float(std.mean()),
        "std_min": float(std.min()),
        "dead_dimensions": 0.0,
    }
    unit = test.features / test.features.norm(dim=2, keepdim=True)
    pairs = [(unit[:, a] - unit[:, b]).square().sum(dim=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    expected = torch.stack(pairs).mean(dim=0).numpy()
    np.testing.assert_allclose(result.per_video["alignment"], expected, rtol=1e-5)
    assert result.settings["largest_rank"] == 6
    assert result.settings["compared_videos"] == 40


def test_a_collapsed_net_is_seen_in_every_metric() -> None:
    collapsed = of(torch.randn(1, 1, 16).expand(30, 3, 16).contiguous())
    metrics = FeatureStatistics()(collapsed, collapsed, num_classes=0).metrics
    assert metrics["alignment"] == pytest.approx(0, abs=1e-12)
    assert metrics["uniformity"] == pytest.approx(0, abs=1e-12)
    assert metrics["rankme"] == pytest.approx(1, abs=1e-3)
    assert metrics["effective_rank"] == 0
    assert metrics["mean_cosine"] == pytest.approx(1)
    assert (metrics["std_mean"], metrics["dead_dimensions"]) == (pytest.approx(0, abs=1e-12), 1.0)


def test_a_net_that_fills_the_sphere_is_near_the_ideal() -> None:
    spread = of(torch.randn(2000, 1, 32).expand(2000, 2, 32).contiguous())
    metrics = FeatureStatistics()(spread, spread, num_classes=0).metrics
    assert metrics["alignment"] == pytest.approx(0, abs=1e-9)
    assert metrics["rankme"] > 31
    assert metrics["effective_rank"] > 30
    assert metrics["std_min"] > 0.9
    assert metrics["uniformity"] == pytest.approx(-4 + 8 / 32, abs=0.05)


def test_clips_that_have_nothing_to_do_with_their_video_are_not_aligned() -> None:
    clips = of(torch.randn(500, 4, 64))
    assert FeatureStatistics()(clips, clips, num_classes=0).metrics["alignment"] == pytest.approx(2, abs=0.02)


def test_dead_dimensions_are_counted() -> None:
    features = torch.randn(50, 3, 8)
    features[..., :2] = 0
    metrics = FeatureStatistics()(of(features), of(features), num_classes=0).metrics
    assert metrics["dead_dimensions"] == 0.25
    assert metrics["std_min"] == 0
    assert metrics["rankme"] < 6.1


def test_labels_change_nothing() -> None:
    labelled = feature_set([0, 1, 2, 3] * 5)
    plain = of(labelled.features)
    results = [FeatureStatistics()(each, each, num_classes=4).metrics for each in (labelled, plain)]
    assert results[0] == results[1]


def test_all_takes_the_videos_of_both_parts() -> None:
    train, test = of(torch.randn(9, 3, 6)), of(torch.randn(5, 3, 6))
    found = FeatureStatistics(videos="all")(train, test, num_classes=0)
    whole = of(torch.cat([train.features, test.features]))
    assert found.metrics == FeatureStatistics()(train, whole, num_classes=0).metrics
    assert found.per_video["alignment"].shape == (14,)


def test_uniformity_is_of_a_seeded_draw_where_there_are_many() -> None:
    videos = of(torch.randn(200, 2, 4))
    results = [
        FeatureStatistics(max_uniformity_videos=50, seed=seed)(videos, videos, num_classes=0) for seed in (0, 0, 1)
    ]
    assert results[0].settings["uniformity_videos"] == 50
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics["uniformity"] != results[2].metrics["uniformity"]
    exact = FeatureStatistics()(videos, videos, num_classes=0).metrics
    assert results[0].metrics["uniformity"] == pytest.approx(exact["uniformity"], abs=0.2)
    assert results[0].metrics["rankme"] == exact["rankme"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_square_of_the_videos() -> None:
    videos = of(torch.randn(20_000, 2, 256))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    FeatureStatistics()(videos, videos, num_classes=0)
    # 20,000 x 20,000 similarities would take 3.2 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_clips_of_both_parts() -> None:
    assert FeatureStatistics(num_clips=3).clips("test") == {NORMAL: ClipSpec(num_clips=3)}
    assert FeatureStatistics.needs_labels is False


def test_faulty_features_are_refused() -> None:
    good = of(torch.randn(4, 2, 3))
    with pytest.raises(InputError, match="the test part has no videos"):
        FeatureStatistics()(good, of(torch.empty(0, 2, 3)), num_classes=0)
    with pytest.raises(InputError, match=r"of the test part have features that are not finite .first: video_0"):
        FeatureStatistics()(good, of(torch.full((2, 2, 3), torch.nan)), num_classes=0)
    with pytest.raises(InputError, match="1 video in the test part, at least 2"):
        FeatureStatistics()(good, of(torch.randn(1, 2, 3)), num_classes=0)
    with pytest.raises(InputError, match="are 0"):
        FeatureStatistics()(good, of(torch.zeros(4, 2, 3)), num_classes=0)
    with pytest.raises(ValueError, match="at least 2 clips"):
        FeatureStatistics()(good, of(torch.randn(4, 1, 3)), num_classes=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clips": 1}, "num_clips=1 must be at least 2"),
        ({"videos": "train"}, "must be one of test, all"),
        ({"dead_below": 0.0}, "dead_below=0.0"),
        ({"max_uniformity_videos": 1}, "max_uniformity_videos=1"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureStatistics(**settings)  # type: ignore[arg-type]
