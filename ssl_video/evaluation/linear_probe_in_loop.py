"""The linear probe with augmentation: a linear layer on the features of clips that are drawn anew in every epoch."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch.nn.modules.batchnorm import _BatchNorm

from ssl_video.backbones.base import Backbone
from ssl_video.evaluation.trained_classifier import TrainedClassifier
from ssl_video.modules.clip_classifier import ClipClassifier, FeatureNorm
from ssl_video.optim.parameter_groups import decay_groups


@dataclass(kw_only=True)
class LinearProbeInLoop(TrainedClassifier):
    """Only the classifier learns, from augmented clips: the linear evaluation of the papers on contrastive learning.

    The linear probe on stored features (`linear_probe`) sees fixed clips and costs a fraction of the time. The
    arguments that it shares with other trained classifiers stand at `TrainedClassifier`.

    Args:
        bn_mode: `eval`, batch norm with the statistics of the pre-training, so that nothing of the backbone changes;
            or `train`, with those of the batch, which also move the stored ones that the test clips are normalised by.
            Whatever else the backbone holds, dropout above all, is in eval mode.
        feature_norm: `none`; `l2`, features scaled to length 1 (CVRL); or `batch_norm`, each to mean 0 and deviation 1,
            over the batch in training and by running statistics in the test (MAE).
    """

    name: ClassVar[str] = "linear_probe_in_loop"

    bn_mode: Literal["eval", "train"] = "eval"
    feature_norm: FeatureNorm = "batch_norm"

    def __post_init__(self) -> None:
        """Refuse a mode that is not known."""
        super().__post_init__()
        if self.bn_mode not in ("eval", "train"):
            raise ValueError(f"bn_mode={self.bn_mode!r} must be 'eval' or 'train'.")

    def make_classifier(self, backbone: Backbone, *, num_classes: int) -> ClipClassifier:
        """Return a new classifier on `backbone`, which is frozen."""
        return ClipClassifier(
            backbone.requires_grad_(False),
            feature_dim=backbone.feature_dim,
            num_classes=num_classes,
            dropout=self.dropout,
            feature_norm=self.feature_norm,
            init_std=self.init_std,
        )

    def parameter_groups(self, classifier: ClipClassifier) -> list[dict[str, Any]]:
        """Return the classifier's parameters, its biases without weight decay."""
        return decay_groups(classifier.linear)

    def prepare(self, classifier: ClipClassifier) -> None:
        """The backbone as in evaluation, but for the batch norm that is asked to train."""
        classifier.train()
        classifier.backbone.eval()
        if self.bn_mode == "train":
            for module in classifier.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
