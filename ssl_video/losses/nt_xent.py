"""NT-Xent: tell the other view of the same video among all clips of the batch (Chen et al., SimCLR, ICML 2020)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ssl_video.utils.distributed import gather, gather_with_grad, rank, rows_per_rank


def nt_xent(first: Tensor, second: Tensor, *, temperature: float, videos: Tensor | None = None) -> Tensor:
    """Contrast two views of each video with each other and with both views of all other videos, over all ranks.

    For each of the 2B embeddings of the global batch, −log(exp(s⁺/α) / Σ exp(s/α)) with cosines s, s⁺ that with the
    other view of its video, and the sum over all embeddings but itself; averaged over this rank's 2N. Embeddings that
    other ranks made carry their gradient back, so that under DDP loss and gradient are those of one process.

    With equal embeddings it is ln(2B − 1); with equal views and orthogonal videos ln(1 + (2B − 2)·exp(−1/α)).

    Args:
        first: one view of N videos, ``[N, D]``; of any length above zero, only the direction counts.
        second: the other view of the same videos, ``[N, D]``.
        temperature: α.
        videos: numbers of the videos ``[N]``. Rows with the same number (segments of one video) are not each other's
            negatives; without it every row is a video of its own.

    Returns:
        The mean loss, a scalar.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; SimCLR and CVRL use 0.1.")
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"The views have shapes {list(first.shape)} and {list(second.shape)}; both must be [N, D].")
    views = torch.stack([normalize(first, dim=1), normalize(second, dim=1)], dim=1)
    columns = torch.cat(gather_with_grad(views).unbind(1))  # [2B, D]: all first views, then all second
    # Under autocast the products come in 16 bits, too coarse for a sum over a large batch.
    precision = torch.promote_types(views.dtype, torch.float32)
    logits = (torch.cat(views.unbind(1)) @ columns.T).to(precision) / temperature

    rows = rows_per_rank(first)
    total = sum(rows)
    own = torch.arange(len(first), device=first.device) + sum(rows[: rank()])
    labels = torch.cat([own + total, own])
    everyone = torch.arange(total, device=first.device)
    numbers = everyone if videos is None else gather(videos)
    same_video = (numbers[own][:, None] == numbers).repeat(2, 2)  # itself, its positive, and other segments
    positive = labels[:, None] == torch.cat([everyone, everyone + total])
    return cross_entropy(logits.masked_fill(same_video & ~positive, -torch.inf), labels)
