"""The small network between features and embedding: contrastive losses read its output, evaluation its input."""

from typing import Literal

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear → [BN] → ReLU between layers, and after the last Linear nothing, or a batch norm.

    Also serves as a predictor. A Linear has a bias only without a batch norm after it, which would subtract it again.
    Weights start as Xavier uniform, biases at zero. MoCo over video uses three layers without
    batch norm (with it the momentum methods lose accuracy), BYOL two with it (Feichtenhofer et al., 2021).

    Args:
        in_features: size of the input, usually the backbone's ``feature_dim``.
        hidden_features: size between the layers; unused with one layer.
        out_features: size of the embedding.
        num_layers: number of Linear layers.
        batch_norm: ``none``; ``hidden``, after each hidden Linear (BYOL); or ``all``, also after the last, there
            without weights of its own (MoCo v3).
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_features: int,
        out_features: int,
        num_layers: int,
        batch_norm: Literal["none", "hidden", "all"] = "none",
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1; one layer is a plain Linear.")
        if batch_norm not in ("none", "hidden", "all"):
            raise ValueError(f"batch_norm={batch_norm!r} is not known; use 'none', 'hidden' or 'all'.")
        layers: list[nn.Module] = []
        size = in_features
        for _ in range(num_layers - 1):
            layers.append(nn.Linear(size, hidden_features, bias=batch_norm == "none"))
            if batch_norm != "none":
                layers.append(nn.BatchNorm1d(hidden_features))
            layers.append(nn.ReLU(inplace=True))
            size = hidden_features
        layers.append(nn.Linear(size, out_features, bias=batch_norm != "all"))
        if batch_norm == "all":
            layers.append(nn.BatchNorm1d(out_features, affine=False))
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[N, in_features]`` to ``[N, out_features]``, not normalised."""
        embedding: Tensor = self.layers(features)
        return embedding
