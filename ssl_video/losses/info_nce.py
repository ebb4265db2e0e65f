"""InfoNCE: tell a query's own key among many (van den Oord et al., 2018; He et al., 2020)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce_queue(
    query: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float,
    multi_positive: Literal["sum_in_log", "mean_of_ce"] = "mean_of_ce",
    excluded: Tensor | None = None,
) -> Tensor:
    """Contrast each query with its ``P`` positive keys and the queue's ``K`` negatives.

    With p_k = exp(q·k/α) for a positive and S = Σ exp(q·n/α) over the queue, averaged over the queries:

    - ``"mean_of_ce"``: mean over k of −log(p_k / (p_k + S)), a (1+K)-way cross-entropy per key. This is what the
      released code of Feichtenhofer et al. (2021) computes.
    - ``"sum_in_log"``: −log(Σp / (Σp + S)), equation 1 of that paper; never above the former.

    They are equal with one positive. A key is never a negative of its own video's other keys.

    Args:
        query: ``[N, D]``, unit length.
        keys: ``[N, P, D]``, unit length.
        queue: ``[K, D]``, the same for all queries.
        temperature: α.
        multi_positive: how several positives count.
        excluded: bool ``[N, K]``, rows of the queue that are no negatives of a query (keys of its own video).

    Returns:
        The mean loss, a scalar.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; MoCo uses 0.07 to 0.2.")
    if query.ndim != 2 or keys.ndim != 3 or keys.shape[1] < 1 or keys.shape[::2] != query.shape:
        raise ValueError(
            f"query {list(query.shape)} and keys {list(keys.shape)} do not fit; they must be [N, D] and [N, P, D], "
            f"P at least 1: with one positive pass keys.unsqueeze(1)."
        )
    # Under autocast the products come in 16 bits, too coarse to be summed over 65536 negatives.
    precision = torch.promote_types(query.dtype, torch.float32)
    positives = torch.einsum("nd,npd->np", query, keys).to(precision) / temperature
    # All P keys of a query meet the same negatives, so their sum is made once and no [N, P, K] is ever held.
    similarities = (query @ queue.T).to(precision) / temperature
    if excluded is not None:
        similarities = similarities.masked_fill(excluded, -torch.inf)
    negatives = torch.logsumexp(similarities, dim=1, keepdim=True)
    if multi_positive == "sum_in_log":
        positives = torch.logsumexp(positives, dim=1, keepdim=True)
    elif multi_positive != "mean_of_ce":
        raise ValueError(f"multi_positive={multi_positive!r} is not known; use 'mean_of_ce' or 'sum_in_log'.")
    # −log(p / (p + S)) = −log sigmoid(log p − log S), which neither overflows nor loses small values.
    return -F.logsigmoid(positives - negatives).mean()
