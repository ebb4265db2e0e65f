"""Whether a network still tells its inputs apart, seen from its embeddings alone."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation of the directions of ``[N, D]`` per dimension, averaged, times √D.

    Near 1 when directions fill the sphere, near 0 when all inputs get the same one (collapse).
    """
    directions = normalize(embeddings.float(), dim=1)
    return directions.std(dim=0, correction=0).mean() * math.sqrt(directions.shape[1])
