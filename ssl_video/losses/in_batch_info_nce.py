"""InfoNCE without a queue: the negatives are the other keys of the batch (Chen et al., MoCo v3, ICCV 2021)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ssl_video.utils.distributed import gather, rank, rows_per_rank


def in_batch_info_nce(query: Tensor, keys: Tensor, *, temperature: float, videos: Tensor | None = None) -> Tensor:
    """Tell each query's own key among the keys of all ranks.

    A cross-entropy over cosines/α, times 2α as in the released code, so that the size of the gradient depends less on
    the temperature. Keys carry no gradient. With equal embeddings it is 2α·ln B for a global batch of B.

    Args:
        query: ``[N, D]``; of any length above zero, only the direction counts.
        keys: ``[N, D]``, row n the positive of query n.
        temperature: α.
        videos: numbers of the videos ``[N]``. Rows with the same number (segments of one video) are not each other's
            negatives; without it every row is a video of its own.

    Returns:
        The mean loss of one direction, a scalar; MoCo v3 adds the other.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; MoCo v3 uses 0.2 for a ViT and 1 for a ResNet.")
    if query.ndim != 2 or query.shape != keys.shape:
        raise ValueError(f"query {list(query.shape)} and keys {list(keys.shape)} do not fit; both must be [N, D].")
    precision = torch.promote_types(query.dtype, torch.float32)
    all_keys = gather(normalize(keys, dim=1))
    logits = (normalize(query, dim=1) @ all_keys.T).to(precision) / temperature

    labels = torch.arange(len(query), device=query.device) + sum(rows_per_rank(query)[: rank()])
    columns = torch.arange(len(all_keys), device=query.device)
    numbers = columns if videos is None else gather(videos)
    other_segments = (numbers[labels][:, None] == numbers) & (labels[:, None] != columns)
    return 2.0 * temperature * cross_entropy(logits.masked_fill(other_segments, -torch.inf), labels)
