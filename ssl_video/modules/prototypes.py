"""Prototypes: learnt directions that SwAV assigns embeddings to (Caron et al., NeurIPS 2020)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Prototypes(nn.Module):
    """``K`` unit vectors; the score of an embedding with each is their cosine.

    A linear layer without bias whose rows ``renormalise`` brings back to unit length; call it at the start of each
    step, as the optimizer leaves them a little off. Starts as random directions.

    Args:
        dim: size D of the embedding.
        num_prototypes: K.
    """

    def __init__(self, dim: int, num_prototypes: int) -> None:
        super().__init__()
        if num_prototypes < 2:
            raise ValueError(f"num_prototypes={num_prototypes} must be at least 2; SwAV over video has 1000.")
        self.weight = nn.Parameter(normalize(torch.randn(num_prototypes, dim), dim=1))

    @torch.no_grad()
    def renormalise(self) -> None:
        """Give each prototype unit length."""
        self.weight.copy_(normalize(self.weight, dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores ``[N, K]`` of embeddings ``[N, D]`` of any length above zero."""
        return nn.functional.linear(normalize(embeddings, dim=1), self.weight)
