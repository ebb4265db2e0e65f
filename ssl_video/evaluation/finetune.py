"""Fine-tuning: how well does a network classify that starts from what was learnt without labels?"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ssl_video.backbones.base import Backbone
from ssl_video.evaluation.trained_classifier import TrainedClassifier
from ssl_video.modules.clip_classifier import ClipClassifier
from ssl_video.optim.layer_groups import layer_groups


@dataclass(kw_only=True)
class Finetune(TrainedClassifier):
    """The whole network learns from labels, backbone and classifier.

    The arguments that it shares with other trained classifiers stand at `TrainedClassifier`.

    Args:
        dropout_of: `clip`, the features that are classified; or `time`, those of each time of the map on its own, with
            the logits averaged over the times (TSN, TSM, TCL).
        layer_decay: factor of the learning rate from one layer to the one below it; see `layer_groups`.
        backbone_lr_factor: learning rate of the backbone, as a multiple of the optimizer's.
        bias_lr_factor: of the backbone's biases besides.
        classifier_lr_factor: of the classifier's weights.
        classifier_bias_lr_factor: of the classifier's biases.
        decay_all: weight decay on biases and norms too.
    """

    name: ClassVar[str] = "finetune"

    dropout_of: Literal["clip", "time"] = "clip"
    layer_decay: float = 1.0
    backbone_lr_factor: float = 1.0
    bias_lr_factor: float = 1.0
    classifier_lr_factor: float = 1.0
    classifier_bias_lr_factor: float = 1.0
    decay_all: bool = False

    def make_classifier(self, backbone: Backbone, *, num_classes: int) -> ClipClassifier:
        """Return a new classifier on `backbone`, all of which learns."""
        return ClipClassifier(
            backbone.requires_grad_(True),
            feature_dim=backbone.feature_dim,
            num_classes=num_classes,
            dropout=self.dropout,
            dropout_of=self.dropout_of,
            init_std=self.init_std,
        )

    def parameter_groups(self, classifier: ClipClassifier) -> list[dict[str, Any]]:
        """Return a group for each learning rate."""
        return layer_groups(
            classifier.backbone,
            classifier.linear,
            layer_decay=self.layer_decay,
            backbone_lr_factor=self.backbone_lr_factor,
            bias_lr_factor=self.bias_lr_factor,
            classifier_lr_factor=self.classifier_lr_factor,
            classifier_bias_lr_factor=self.classifier_bias_lr_factor,
            decay_all=self.decay_all,
        )

    def prepare(self, classifier: ClipClassifier) -> None:
        """Dropout and batch norm as in any training."""
        classifier.train()
