import numpy as np
import pytest
import torch

from ssl_video.evaluation.video_scores import score_videos
from ssl_video.metrics.averaging import Averaged
from ssl_video.modules.clip_classifier import ClipClassifier
from ssl_video.utils.errors import InputError
from support.training import MadeClips, TinyNet

CPU = torch.device("cpu")
LABELS = [0, 1, 2, 1, 0]


def classifier() -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(TinyNet(), feature_dim=8, num_classes=3, init_std=30.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def oracle(net: ClipClassifier, clips: np.ndarray, average: Averaged) -> np.ndarray:
    """Averages `[B, V, ...]` clips of each video by hand."""
    weight, bias = net.linear.weight.detach().double().numpy(), net.linear.bias.detach().double().numpy()
    rows = []
    for video in clips:
        features = net.backbone(torch.from_numpy(video)).detach().double().numpy()
        if average == "features":
            rows.append(softmax(features.mean(axis=0) @ weight.T + bias))
        elif average == "logits":
            rows.append(softmax((features @ weight.T + bias).mean(axis=0)))
        else:
            rows.append(softmax(features @ weight.T + bias).mean(axis=0))
    return np.array(rows)


@pytest.mark.parametrize("average", ["probabilities", "logits", "features"])
def test_views_are_averaged_as_by_hand(average: Averaged) -> None:
    data, net = MadeClips(LABELS, LABELS), classifier().eval()
    batches = list(data.test_batches(data.test.rows, num_clips=2, crops="three", batch_size=2))
    scored = score_videos(net, batches, device=CPU, average=average, at_once=5)
    clips = torch.cat([batch.clips for batch in batches])
    assert clips.shape[1] == 6
    np.testing.assert_allclose(scored.probabilities.numpy(), oracle(net, clips.numpy(), average), atol=1e-5)
    assert scored.labels.tolist() == LABELS


def test_probabilities_and_logits_differ() -> None:
    data, net = MadeClips(LABELS, LABELS, meaning=False), classifier()
    batches = list(data.test_batches(data.test.rows, num_clips=4, crops="centre", batch_size=5))
    first, second = (
        score_videos(net, batches, device=CPU, average=how, at_once=99).probabilities
        for how in ("probabilities", "logits")
    )
    assert float((first - second).abs().max()) > 1e-4


@pytest.mark.parametrize(("batch_size", "at_once"), [(1, 1), (3, 4), (5, 100)])
def test_batches_do_not_matter(batch_size: int, at_once: int) -> None:
    data, net = MadeClips(LABELS, LABELS), classifier()
    expected = score_videos(
        net,
        data.test_batches(data.test.rows, num_clips=3, crops="centre", batch_size=2),
        device=CPU,
        average="probabilities",
        at_once=6,
    )
    batches = data.test_batches(data.test.rows, num_clips=3, crops="centre", batch_size=batch_size)
    scored = score_videos(net, batches, device=CPU, average="probabilities", at_once=at_once)
    torch.testing.assert_close(scored.probabilities, expected.probabilities)
    assert scored.labels.tolist() == LABELS


def test_unreadable_videos_are_left_out_and_told() -> None:
    data = MadeClips(LABELS, LABELS, unreadable=[1002, 1004])
    batches = data.test_batches(data.test.rows, num_clips=1, crops="centre", batch_size=2)
    scored = score_videos(classifier(), batches, device=CPU, average="logits", at_once=9)
    assert scored.unreadable == [1002, 1004]
    assert scored.labels.tolist() == [0, 1, 1]


def test_nothing_readable_is_refused() -> None:
    data = MadeClips(LABELS, [0], unreadable=[1000])
    batches = data.test_batches(data.test.rows, num_clips=1, crops="centre", batch_size=2)
    with pytest.raises(InputError, match="none of the 1 videos"):
        score_videos(classifier(), batches, device=CPU, average="logits", at_once=9)
