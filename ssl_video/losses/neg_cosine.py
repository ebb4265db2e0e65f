"""The loss of BYOL: a prediction points where its target does (Grill et al., NeurIPS 2020)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def neg_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """−2·cos, averaged over rows: the squared distance of the unit vectors, less 2. It lies in [−2, 2].

    Args:
        prediction: ``[N, D]``; of any length above zero, only the direction counts.
        target: ``[N, D]``; it gets no gradient.

    Returns:
        The mean loss, a scalar.
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction {list(prediction.shape)} and target {list(target.shape)} do not fit; both must be [N, D]."
        )
    precision = torch.promote_types(prediction.dtype, torch.float32)
    directions = normalize(prediction.to(precision), dim=1), normalize(target.detach().to(precision), dim=1)
    return -2.0 * (directions[0] * directions[1]).sum(dim=1).mean()
