import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_video.backbones.base import Backbone
from ssl_video.methods.cvrl import CVRL
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch


def test_total_of_equal_embeddings_is_a_sum_of_two_means() -> None:
    """2 ln(2B − 1); the mean of both, as the paper writes it, is half."""
    for total, expected in (("sum", 3.891820), ("mean", 1.945910)):
        method, config = build_method("cvrl", f"method.total={total}")
        method.eval()
        batch = random_batch(config, batch_size=4)
        loss = method.losses(replace(batch, clips=torch.zeros_like(batch.clips)))["nt_xent"]
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        assert loss.item() == pytest.approx((2 if total == "sum" else 1) * math.log(7), abs=1e-5)


class _Features2048(Backbone):
    feature_dim = 2048

    def feature_map(self, clips: torch.Tensor) -> torch.Tensor:
        return clips


def test_projector_of_the_paper() -> None:
    """Three hidden layers with biases and slow batch norm: 12 863 616 parameters."""
    with torch.device("meta"):
        method = CVRL(backbone=_Features2048(), optimizer=torch.optim.SGD, scheduler=None)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in method.projector.parameters()) == 12_863_616
    norms = [m for m in method.projector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [norm.momentum for norm in norms] == [0.003] * 3
    assert method.temperature == 0.1


def test_both_clips_share_their_batch_statistics() -> None:
    method, config = build_method("cvrl")
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    method.losses(random_batch(config))
    assert {int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None} == {1}


def test_segments_of_one_video_are_no_negatives() -> None:
    method, config = build_method("cvrl")
    batch = random_batch(config, batch_size=4)
    assert method.losses(replace(batch, videos=torch.zeros(4, dtype=torch.int64)))["nt_xent"].item() == 0.0


def test_three_clips_and_an_unknown_total_are_refused() -> None:
    method, _ = build_method("cvrl")
    with pytest.raises(InputError, match=r"sampler\.num_views=3"):
        method.check_batch(num_views=3, num_frames=8)
    with pytest.raises(InputError, match=r"method\.total='both'"):
        CVRL(backbone=_Features2048(), optimizer=torch.optim.SGD, scheduler=None, total="both")  # type: ignore[arg-type]
