"""The head of clip order prediction: it compares the clips two by two before it names their order."""

from itertools import combinations

import torch
from torch import Tensor, nn


class PairwiseHead(nn.Module):
    """Classify the order of a tuple of clips from all its pairs.

    Each pair (i, j), i < j, in lexicographic order: concatenate the two features → Linear, shared by all pairs → ReLU.
    Then concatenate the pairs → dropout → Linear. No batch norm, PyTorch's default initialisation
    (Xu et al., "Self-supervised Spatiotemporal Learning via Video Clip Order Prediction", 2019, and its code).

    Args:
        feature_dim: size ``D`` of one clip's features.
        num_clips: clips in a tuple, 2 to 5.
        hidden_features: size of a pair's representation.
        num_classes: number of orders told apart, ``num_clips!`` when all are.
        dropout: share of the pairs' representation dropped in training.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        num_clips: int,
        hidden_features: int = 512,
        num_classes: int,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not 2 <= num_clips <= 5:
            raise ValueError(f"num_clips={num_clips} must be 2 to 5; six clips already have 720 orders.")
        self.num_clips = num_clips
        self.pairs = list(combinations(range(num_clips), 2))
        self.pair = nn.Sequential(nn.Linear(2 * feature_dim, hidden_features), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(len(self.pairs) * hidden_features, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[B, V, D]``, clips in presented order, to logits ``[B, num_classes]``.

        Raises:
            ValueError: ``V`` is not ``num_clips``.
        """
        if features.shape[1] != self.num_clips:
            raise ValueError(
                f"The features hold {features.shape[1]} clips per video, the head compares num_clips={self.num_clips}; "
                f"give the sampler as many views."
            )
        pairs = [self.pair(torch.cat([features[:, i], features[:, j]], dim=1)) for i, j in self.pairs]
        logits: Tensor = self.classifier(torch.cat(pairs, dim=1))
        return logits
