"""Swapped prediction: tell from one view to which prototypes the other was assigned (Caron et al., SwAV, 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_video.utils.distributed import gather, rows_per_rank, sum_with_grad


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, num_iterations: int = 3) -> Tensor:
    """Assign the samples of all ranks to prototypes, about equally many to each (Sinkhorn-Knopp).

    From exp(score/ε), each iteration first gives every prototype the same total over the global batch, then every
    sample the same total over the prototypes. Few iterations balance the prototypes only roughly.

    Args:
        scores: cosines of this rank's samples with the prototypes, ``[N, K]``.
        epsilon: ε; the smaller, the nearer a code is to one prototype alone.
        num_iterations: at least 1.

    Returns:
        Codes ``[N, K]`` without gradient, at least float32; each sums to 1.
    """
    if epsilon <= 0 or num_iterations < 1:
        raise ValueError(
            f"epsilon={epsilon} must be above 0 and num_iterations={num_iterations} at least 1; SwAV uses 0.05 and 3."
        )
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    # A factor common to all ranks' entries cancels; this one keeps exp from overflowing.
    codes = torch.exp(scores - gather(scores.max().reshape(1)).max())
    num_samples, num_prototypes = sum(rows_per_rank(codes)), codes.shape[1]
    for _ in range(num_iterations):
        totals = sum_with_grad(codes.sum(dim=0)).clamp_min(torch.finfo(codes.dtype).tiny)
        codes = codes * (num_samples / num_prototypes) / totals
        codes = codes / codes.sum(dim=1, keepdim=True)
    return codes


def swapped_prediction(
    scores: Sequence[Tensor],
    *,
    temperature: float,
    epsilon: float = 0.05,
    num_iterations: int = 3,
    num_code_views: int = 2,
) -> Tensor:
    """Cross-entropy of each view's softmax(score/α) with the other views' codes.

    The first ``num_code_views`` views are assigned to prototypes, each view by itself; each code is then predicted by
    all other views. The loss is a mean over codes of means over predicting views, as in the rho-study's code.

    Args:
        scores: one ``[N, K]`` of cosines per view of the same videos; two or more views.
        temperature: α of the predictions.
        epsilon: of the codes, see `sinkhorn`.
        num_iterations: of the codes, see `sinkhorn`.
        num_code_views: views that are assigned, at most all.

    Returns:
        The mean loss, a scalar.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; SwAV uses 0.1.")
    if len(scores) < 2 or not 1 <= num_code_views <= len(scores):
        raise ValueError(
            f"{len(scores)} view(s) and num_code_views={num_code_views} do not fit; there must be 2 views or more, and "
            "codes of at least one and at most all of them."
        )
    precision = torch.promote_types(scores[0].dtype, torch.float32)
    losses = []
    for assigned in range(num_code_views):
        codes = sinkhorn(scores[assigned].detach(), epsilon=epsilon, num_iterations=num_iterations)
        for view, predicted in enumerate(scores):
            if view != assigned:
                losses.append(cross_entropy(predicted.to(precision) / temperature, codes))
    return torch.stack(losses).mean()
