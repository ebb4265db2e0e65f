"""The small network between features and embedding: contrastive losses read its output, evaluation its input."""

from typing import Literal

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear → [BN] → ReLU between layers, and after the last Linear nothing, or a batch norm.

    Also serves as a predictor. Weights start as Xavier uniform, biases at zero. MoCo over video uses three layers
    without batch norm (with it the momentum methods lose accuracy), BYOL two with it (Feichtenhofer et al., 2021).

    Args:
        in_features: size of the input, usually the backbone's ``feature_dim``.
        hidden_features: size between the layers; unused with one layer.
        out_features: size of the embedding.
        num_layers: number of Linear layers.
        batch_norm: ``none``; ``hidden``, after each hidden Linear (BYOL); or ``all``, also after the last, there
            without weights of its own (MoCo v3).
        bias: which Linear layers have one. ``without_batch_norm``: those that no batch norm follows, which would
            subtract it again; ``all`` (CVRL); ``none`` (MoCo v3).
        batch_norm_momentum: weight of a batch in the running statistics.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_features: int,
        out_features: int,
        num_layers: int,
        batch_norm: Literal["none", "hidden", "all"] = "none",
        bias: Literal["without_batch_norm", "all", "none"] = "without_batch_norm",
        batch_norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1; one layer is a plain Linear.")
        if batch_norm not in ("none", "hidden", "all"):
            raise ValueError(f"batch_norm={batch_norm!r} is not known; use 'none', 'hidden' or 'all'.")
        if bias not in ("without_batch_norm", "all", "none"):
            raise ValueError(f"bias={bias!r} is not known; use 'without_batch_norm', 'all' or 'none'.")
        layers: list[nn.Module] = []
        size = in_features
        for _ in range(num_layers - 1):
            has_bias = bias == "all" or (bias == "without_batch_norm" and batch_norm == "none")
            layers.append(nn.Linear(size, hidden_features, bias=has_bias))
            if batch_norm != "none":
                layers.append(nn.BatchNorm1d(hidden_features, momentum=batch_norm_momentum))
            layers.append(nn.ReLU(inplace=True))
            size = hidden_features
        has_bias = bias == "all" or (bias == "without_batch_norm" and batch_norm != "all")
        layers.append(nn.Linear(size, out_features, bias=has_bias))
        if batch_norm == "all":
            layers.append(nn.BatchNorm1d(out_features, affine=False, momentum=batch_norm_momentum))
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
