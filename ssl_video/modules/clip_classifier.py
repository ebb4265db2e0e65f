"""A linear classifier on a backbone."""

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import normalize

FeatureNorm = Literal["none", "l2", "batch_norm"]


class ClipClassifier(nn.Module):
    """Features of each clip, dropout, one linear layer.

    Args:
        backbone: maps clips ``[N, C, T, H, W]`` to features ``[N, D]``, by ``forward``, and to ``[N, D, t, h, w]``, by
            ``feature_map``.
        feature_dim: D.
        num_classes: K.
        dropout: of the features, in training.
        dropout_of: ``clip``, the features that are classified; or ``time``, those of each time of the map on its own,
            whose logits are then averaged (TSN and TSM, where a time is a frame). The same without dropout.
        feature_norm: of the features before dropout: ``none``; ``l2``, scaled to length 1 (CVRL); ``batch_norm``, each
            to mean 0 and deviation 1 over the batch, without weights of its own (the linear probe of MAE), so that the
            learning rate does not depend on how large a network's features are.
        init_std: standard deviation of the layer's first weights, with biases 0; None leaves torch's default.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        num_classes: int,
        dropout: float = 0.0,
        dropout_of: Literal["clip", "time"] = "clip",
        feature_norm: FeatureNorm = "none",
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if dropout_of not in ("clip", "time"):
            raise ValueError(f"dropout_of={dropout_of!r} must be 'clip' or 'time'.")
        if feature_norm not in get_args(FeatureNorm):
            raise ValueError(f"feature_norm={feature_norm!r} must be one of {', '.join(get_args(FeatureNorm))}.")
        if dropout_of == "time" and feature_norm != "none":
            raise ValueError(f"dropout_of='time' with feature_norm={feature_norm!r}, which is of a clip's features.")
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_dim, num_classes)
        self.dropout_of = dropout_of
        self.feature_norm = feature_norm
        # Its small eps as in MAE: the features of a fresh network hardly vary. The statistics of all batches count
        # alike: those of a frozen backbone do not drift, and a short training would not forget where they began.
        norm = {"batch_norm": nn.BatchNorm1d(feature_dim, eps=1e-6, momentum=None, affine=False)}
        self.batch_norm = norm.get(feature_norm)
        if init_std is not None:
            nn.init.normal_(self.linear.weight, std=init_std)
            nn.init.zeros_(self.linear.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits ``[N, K]`` of clips ``[N, C, T, H, W]``."""
        if self.dropout_of == "clip":
            return self.classify(self.backbone(clips))
        times = self.backbone.feature_map(clips).mean(dim=(3, 4)).transpose(1, 2)  # type: ignore[operator]
        logits: Tensor = self.linear(self.dropout(times)).mean(dim=1)
        return logits

    def classify(self, features: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, D]``."""
        if self.feature_norm == "l2":
            features = normalize(features, dim=1)
        if self.batch_norm is not None:
            features = self.batch_norm(features)
        logits: Tensor = self.linear(self.dropout(features))
        return logits
