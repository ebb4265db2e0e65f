"""TCL: a few labels, and two speeds of every unlabelled video that agree."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_video.backbones.base import Backbone
from ssl_video.data.semi_batch import SemiBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.optim.parameter_groups import classifier_groups
from ssl_video.semi.consistency import ContrastOn, GroupNTXent, HardCE, InstanceNTXent
from ssl_video.semi.phases import Phase, PhaseUnit, weights_at
from ssl_video.semi.selection import All, FixedThreshold
from ssl_video.semi.targets import SelfModel
from ssl_video.semi.terms import Term, active_terms, describe_selection, unlabeled_losses
from ssl_video.utils.errors import InputError


class TCL(SSLMethod[SemiBatch]):
    """Temporal contrastive learning: a classifier learns from few labels and from unlabelled videos at two speeds.

    Three phases: labels alone; labels, and instance and group contrast between the fast and the slow view of unlabelled
    videos, on the classifier's outputs; labels, and the classifier's own sure predictions as labels. Under gradient
    accumulation a clip's negatives are those of its own batch.

    Source: Singh et al., "Semi-Supervised Action Recognition with Temporal Contrastive Learning", CVPR 2021, and its
    released code. Where the two differ the code's form is the default: contrast of probabilities instead of logits,
    gradient through the slow view only.

    Differs from the reference: the outputs that are contrasted are those of all ranks (there: of both GPUs of one
    process); a slow video is never contrasted with a segment of the same video; the head and the length of the stage
    before the labels are not known, here the head has ``pretrain_outputs`` outputs.

    Args:
        num_classes: C, from the data.
        stage: ``pretrain`` is the instance contrast alone, without labels; a run of ``train`` then starts from its
            backbone (``backbone.weights=``).
        supervised_until: where labels alone end.
        finetune_from: where the contrast ends and pseudo-labels begin.
        phases_in: unit of both, ``epochs`` or ``share`` of the run.
        instance_weight: γ.
        group_weight: β.
        pseudo_weight: γ of the fine-tuning.
        temperature: α of both contrasts.
        threshold: probability from which a prediction is taken as a label.
        contrast_on: ``prob`` (code) or ``logit`` (paper).
        stop_gradient: False lets the gradient flow through the fast view too (paper).
        dropout: of a frame's features.
        pretrain_outputs: outputs of the head in the stage ``pretrain``.
        bias_lr_factor: learning rate of the backbone's biases, as a multiple of its weights'.
        classifier_lr_factor: of the classifier's weights.
        classifier_bias_lr_factor: of the classifier's biases.
    """

    unlabeled_views = ("fast", "slow")
    min_batch_size = 2
    compares_videos, compiles_whole, shards = True, False, False

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        num_classes: int,
        seed: int = 0,
        stage: Literal["train", "pretrain"] = "train",
        supervised_until: float = 50.0,
        finetune_from: float = 350.0,
        phases_in: PhaseUnit = "epochs",
        instance_weight: float = 9.0,
        group_weight: float = 1.0,
        pseudo_weight: float = 1.0,
        temperature: float = 0.5,
        threshold: float = 0.8,
        contrast_on: ContrastOn = "prob",
        stop_gradient: bool = True,
        dropout: float = 0.5,
        pretrain_outputs: int = 128,
        bias_lr_factor: float = 2.0,
        classifier_lr_factor: float = 5.0,
        classifier_bias_lr_factor: float = 10.0,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if not 0 <= supervised_until <= finetune_from:
            raise InputError(f"method.supervised_until={supervised_until} must be 0 to finetune_from={finetune_from}.")
        if stage == "train" and num_classes < 2:
            raise InputError(f"TCL learns from labels, and the data has {num_classes} classes; it needs 2 or more.")
        outputs = num_classes if stage == "train" else pretrain_outputs
        linear = nn.Linear(backbone.feature_dim, outputs)
        nn.init.normal_(linear.weight, std=0.001)
        nn.init.zeros_(linear.bias)
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)
        self.lr_factors = {
            "bias_lr_factor": bias_lr_factor,
            "classifier_lr_factor": classifier_lr_factor,
            "classifier_bias_lr_factor": classifier_bias_lr_factor,
        }
        contrast: Any = {"temperature": temperature, "contrast_on": contrast_on, "stop_gradient": stop_gradient}
        self.terms = {
            "instance": Term(SelfModel("fast"), All(), InstanceNTXent("fast", "slow", **contrast)),
            "group": Term(SelfModel("fast"), All(), GroupNTXent("fast", "slow", **contrast)),
            "pseudo": Term(SelfModel("fast"), FixedThreshold(threshold), HardCE("fast")),
        }
        self.phases_in = phases_in
        self.phases = [
            Phase(0, {"sup": 1.0}),
            Phase(supervised_until, {"sup": 1.0, "instance": instance_weight, "group": group_weight}),
            Phase(finetune_from, {"sup": 1.0, "pseudo": pseudo_weight}),
        ]
        if stage == "pretrain":
            self.phases = [Phase(0, {"instance": 1.0})]

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """A labelled video is one clip."""
        if num_views != 1:
            raise InputError(f"sampler.num_views={num_views}; TCL takes 1 clip of a labelled video; set it to 1.")

    def losses(self, batch: SemiBatch) -> dict[str, Tensor]:
        """The losses of the present phase; those of the others are 0."""
        unit_steps = self.steps_per_epoch if self.phases_in == "epochs" else self.total_steps
        weights = weights_at(self.global_step, self.phases, unit_steps=unit_steps)
        zero = torch.zeros((), device=batch.hidden_labels.device)
        losses = {name: zero for phase in self.phases for name in phase.weights}
        # One pass each: batch norm sees labelled, fast and slow clips apart, as in the released code.
        if "sup" in weights:
            logits = self.predict(batch.labeled.clips[:, 0])
            losses["sup"] = weights["sup"] * cross_entropy(logits, batch.labeled.labels)
            self.observed["accuracy"] = (logits.argmax(dim=1) == batch.labeled.labels).float().mean()
        terms = active_terms(self.terms, weights)
        views = {view for term in terms.values() for view in term.views}
        seen = {name: self.predict(batch.unlabeled[name].clips[:, 0]) for name in self.unlabeled_views if name in views}
        losses |= unlabeled_losses(terms, weights, logits=seen, videos=batch.unlabeled["fast"].videos)
        if "sup" in weights:
            self.observed |= describe_selection(terms, logits=seen, hidden_labels=batch.hidden_labels)
        return losses

    def predict(self, clips: Tensor) -> Tensor:
        """Clips ``[N, C, T, H, W]`` to logits ``[N, num_classes]``: the mean of those of every time of the map."""
        features = self.backbone.feature_map(clips).mean(dim=(3, 4)).transpose(1, 2)
        logits: Tensor = self.classifier(features).mean(dim=1)
        return logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Biases and classifier learn faster."""
        return classifier_groups(self.backbone, self.classifier, **self.lr_factors)
