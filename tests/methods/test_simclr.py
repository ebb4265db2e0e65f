from itertools import combinations

import pytest
import torch

from ssl_video.losses.nt_xent import nt_xent
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch


@pytest.mark.parametrize(("pairs", "compared"), [("chain", [(0, 1), (1, 2), (2, 3)]), ("all", None)])
def test_pairs_of_four_clips(pairs: str, compared: list[tuple[int, int]] | None) -> None:
    method, config = build_method("simclr", "sampler.num_views=4", f"method.pairs={pairs}")
    method.eval()
    batch = random_batch(config)
    loss = method.losses(batch)["nt_xent"]
    embeddings = [method.projector(method.backbone(clips)) for clips in batch.clips.unbind(1)]  # type: ignore[operator]
    expected = [
        nt_xent(embeddings[a], embeddings[b], temperature=config.method.temperature)
        for a, b in compared or combinations(range(4), 2)
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_each_clip_is_normalised_by_its_own_view() -> None:
    method, config = build_method("simclr")
    method.losses(random_batch(config))
    counts = {int(buffer) for name, buffer in method.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2}


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"method\.pairs"):
        build_method("simclr", "method.pairs=ring")
