"""The head of frame sorting (OPN): it compares the frames two by two before it names their order."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

PAIRS = ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3))


class SharedStatisticsNorm(nn.Module):
    """Batch norms of several places which share their running statistics and nothing else.

    In training each place is normalised by the batch's own statistics *at that place* and moves the one running mean
    and variance; in evaluation all are normalised by these. Scale and shift are each place's own.

    Args:
        num_places: how many.
        num_features: ``F``.
        momentum: share of a batch in the running statistics, as in torch's batch norms; each place moves them once.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_places: int, num_features: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        # One parameter per place: of one dimension each, so that they are known as a norm's, which don't decay.
        self.weights = nn.ParameterList(torch.ones(num_features) for _ in range(num_places))
        self.biases = nn.ParameterList(torch.zeros(num_features) for _ in range(num_places))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.momentum = momentum
        self.eps = eps

    def forward(self, features: Tensor, place: int) -> Tensor:
        """Normalise the features ``[B, F]`` of one place."""
        return batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weights[place],
            self.biases[place],
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


class PairwiseSortingHead(nn.Module):
    """Classify the order of four frames from all their pairs.

    Each pair, in the order (0,1) (1,2) (2,3) (0,2) (1,3) (0,3): concatenate the two features → Linear, shared by all
    pairs → a batch norm of the pair's own, with running statistics that all pairs share → ReLU → dropout. Then
    concatenate the pairs → Linear (Lee et al., "Unsupervised Representation Learning by Sorting Sequences", ICCV 2017,
    and its released code).

    Args:
        feature_dim: size ``D`` of one frame's features.
        num_classes: orders told apart, 12 where an order and its reverse are one.
        hidden_features: size of a pair's representation.
        dropout: share of a pair's representation dropped in training.
        gaussian_init: start as the released code does: weights from a normal distribution of deviation 0.005 and biases
            at 1. PyTorch's own start otherwise.
        batch_norm_momentum: of the running statistics; 0.001 is Caffe's default.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        num_classes: int = 12,
        hidden_features: int = 512,
        dropout: float = 0.5,
        gaussian_init: bool = True,
        batch_norm_momentum: float = 0.001,
    ) -> None:
        super().__init__()
        self.pair = nn.Linear(2 * feature_dim, hidden_features)
        self.norm = SharedStatisticsNorm(len(PAIRS), hidden_features, momentum=batch_norm_momentum)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(len(PAIRS) * hidden_features, num_classes)
        if gaussian_init:
            for layer in (self.pair, self.classifier):
                nn.init.normal_(layer.weight, std=0.005)
                nn.init.ones_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[B, 4, D]``, frames in presented order, to logits ``[B, num_classes]``.

        Raises:
            ValueError: not four frames.
        """
        if features.shape[1] != 4:
            raise ValueError(f"The features hold {features.shape[1]} frames per tuple; the head sorts 4.")
        pairs = []
        for place, (i, j) in enumerate(PAIRS):
            compared = self.norm(self.pair(torch.cat([features[:, i], features[:, j]], dim=1)), place)
            pairs.append(self.dropout(compared.relu()))
        logits: Tensor = self.classifier(torch.cat(pairs, dim=1))
        return logits
