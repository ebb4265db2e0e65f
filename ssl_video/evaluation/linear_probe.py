"""The linear probe: how well can a linear layer read the classes out of frozen features."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.evaluation.clips import NORMAL, ClipSpec, Crops, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_classes, check_labelled, check_num_clips
from ssl_video.evaluation.linear_layer import choose_strength, fit_linear_layer, hold_out
from ssl_video.evaluation.sgd_layer import FeatureNorm, SGDLayer, SGDRecipe
from ssl_video.evaluation.trained_classifier import described
from ssl_video.evaluation.training import check_batch
from ssl_video.metrics.averaging import Averaged, classify_views
from ssl_video.metrics.classification import balanced_accuracy, topk_hits
from ssl_video.utils.errors import InputError

# Features `[M, D]` of clips to logits, or log probabilities, `[M, K]` of the K classes in train.
_Classify = Callable[[Tensor], Tensor]


class LinearProbe:
    """A linear layer on frozen features of fixed clips; a test video's score is the mean over its views.

    `solver=lbfgs`: multinomial logistic regression, each train clip a sample, solved to convergence. The papers train
    this layer by SGD with a learning rate searched for each model; a convex problem with one searched number, the
    strength of the L2 penalty, has no such luck in it.

    `solver=sgd`: as in the papers, on stored clips. It differs from theirs in that they draw and augment clips anew in
    every epoch, which is `linear_probe_in_loop`; here an epoch shows each video once, by one of its stored clips.

    Where there are several strengths or learning rates, one is chosen by accuracy on videos held out of the train part,
    whole groups where there are groups, never by the test part; then the layer is fitted again on all train videos.
    Every class keeps a video to fit on: where that leaves nothing to hold out, the middle value is taken, and the
    settings say `validation_videos: 0`.

    Args:
        solver: `lbfgs` or `sgd`.
        num_clips: evenly spread clips per train video.
        test_clips: per test video; None for as many.
        test_crops: per test clip.
        num_frames: frames per clip; None for those the backbone was trained with.
        feature_norm: `standardise`, each feature to mean 0 and deviation 1 over the clips that are fitted on; `l2`, the
            features of a clip to length 1; or `none`.
        average: what is averaged over the views: `probabilities`, `logits` or `features`.
        val_fraction: share of the train videos held out for the choice.
        seed: of the videos held out, and of all that SGD draws.
        strengths: lbfgs: of the penalty `strength / 2 * |W|^2`, which is added to the mean cross entropy.
        max_iterations: lbfgs: for each fit.
        lrs: sgd: learning rates to choose from.
        batch_size: sgd: videos per step.
        epochs: sgd: length of the training.
        optimizer: sgd: makes the optimizer; its own `lr` gives way to `lrs`. None for SGD with a momentum of 0.9.
        scheduler: sgd: makes the schedule. None for half a cosine.
        init_std: sgd: standard deviation of the first weights.
    """

    name: ClassVar[str] = "linear_probe"
    version: ClassVar[int] = 2
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        solver: Literal["lbfgs", "sgd"] = "lbfgs",
        num_clips: int = 5,
        test_clips: int | None = None,
        test_crops: Crops = "centre",
        num_frames: int | None = None,
        feature_norm: FeatureNorm = "standardise",
        average: Averaged = "probabilities",
        val_fraction: float = 0.1,
        seed: int = 0,
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        max_iterations: int = 200,
        lrs: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
        batch_size: int = 64,
        epochs: float = 100.0,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        init_std: float = 0.01,
    ) -> None:
        for value, known in ((solver, ("lbfgs", "sgd")), (feature_norm, get_args(FeatureNorm))):
            if value not in known:
                raise ValueError(f"{value!r} must be one of {', '.join(known)}.")
        for clips in (num_clips, num_clips if test_clips is None else test_clips):
            check_num_clips(clips)
        for name, values in (("strengths", strengths), ("lrs", lrs)):
            if len(values) == 0 or min(values) <= 0:
                raise ValueError(f"{name}={list(values)} must hold numbers above 0.")
        if not 0 < val_fraction <= 0.5:
            raise ValueError(f"val_fraction={val_fraction} must lie in (0, 0.5]; the larger part is fitted on.")
        if max_iterations < 1 or batch_size < 1 or epochs <= 0:
            raise ValueError(
                f"max_iterations={max_iterations}, batch_size={batch_size}, epochs={epochs} must be above 0."
            )
        self.solver = solver
        self.num_clips = num_clips
        self.test_clips = num_clips if test_clips is None else test_clips
        self.test_crops: Crops = test_crops
        self.num_frames = num_frames
        self.feature_norm: FeatureNorm = feature_norm
        self.average: Averaged = average
        self.val_fraction = val_fraction
        self.seed = seed
        self.strengths = sorted(float(strength) for strength in strengths)
        self.max_iterations = max_iterations
        self.lrs = sorted(float(lr) for lr in lrs)
        given: dict[str, Any] = {"optimizer": optimizer, "scheduler": scheduler}
        self.recipe = SGDRecipe(
            batch_size=batch_size,
            epochs=epochs,
            feature_norm=feature_norm,
            init_std=init_std,
            seed=seed,
            **{name: factory for name, factory in given.items() if factory is not None},
        )

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of a part."""
        if part == "train":
            return {NORMAL: ClipSpec(num_clips=self.num_clips, num_frames=self.num_frames)}
        return {NORMAL: ClipSpec(num_clips=self.test_clips, crops=self.test_crops, num_frames=self.num_frames)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Fit on the videos of `train`, classify those of `test`.

        Raises:
            InputError: an empty part, videos without a label, a train part of one class, fewer videos than a batch, or
                learning rates that all diverge.
        """
        check_labelled(train, test, num_classes=num_classes)
        check_classes(train)
        labels = train.labels.cpu().numpy()
        held_out = np.zeros(len(labels), dtype=bool)
        if len(self.strengths if self.solver == "lbfgs" else self.lrs) > 1:
            held_out = hold_out(labels, train.groups, fraction=self.val_fraction, seed=self.seed)
        solve = self._by_lbfgs if self.solver == "lbfgs" else self._by_sgd
        classify, chosen = solve(train, held_out)
        seen = torch.from_numpy(np.unique(labels))
        scores = torch.full((len(test), num_classes), -torch.inf, dtype=torch.float64)
        scores[:, seen] = classify_views(test.features.cpu(), classify, self.average)
        test_labels = test.labels.cpu()
        hits = {f"top{place}": topk_hits(scores, test_labels, k=place).double().numpy() for place in (1, 5)}
        metrics = {metric: float(np.mean(values)) for metric, values in hits.items()}
        predictions = scores.argmax(dim=1)
        metrics["balanced_accuracy"] = balanced_accuracy(predictions, test_labels)
        settings = {
            "solver": self.solver,
            **chosen,
            "validation_videos": int(held_out.sum()),
            "val_fraction": self.val_fraction,
            "feature_norm": self.feature_norm,
            "average": self.average,
            "seed": self.seed,
            "num_clips": train.num_clips,
            "test_clips": self.test_clips,
            "test_crops": self.test_crops,
        }
        return ProtocolResult(metrics=metrics, per_video=hits, settings=settings, predictions=predictions.numpy())

    # --- L-BFGS ---

    def _by_lbfgs(self, train: FeatureSet, held_out: np.ndarray) -> tuple[_Classify, dict[str, Any]]:
        """Return the fitted layer's log probabilities as a function of clips, and what was chosen."""
        features, labels = self._as_array(train.features), train.labels.cpu().numpy()
        how: dict[str, Any] = {
            "standardise": self.feature_norm == "standardise",
            "max_iterations": self.max_iterations,
        }
        strength = choose_strength(features, labels, held_out, strengths=self.strengths, **how)
        layer = fit_linear_layer(features, labels, strength=strength, **how)

        def classify(clips: Tensor) -> Tensor:
            inputs = (self._as_array(clips) - layer.shift) / layer.scale
            return torch.from_numpy(layer.model.predict_log_proba(inputs))

        chosen = {"strength": strength, "strengths_asked": self.strengths, "max_iterations": self.max_iterations}
        return classify, {**chosen, "converged": layer.converged}

    def _as_array(self, features: Tensor) -> np.ndarray:
        """Return features as float64, of length 1 along the last dimension where that is asked."""
        wide = features.double().cpu()
        return (normalize(wide, dim=-1) if self.feature_norm == "l2" else wide).numpy()

    # --- SGD ---

    def _by_sgd(self, train: FeatureSet, held_out: np.ndarray) -> tuple[_Classify, dict[str, Any]]:
        """Return the trained layer's logits as a function of clips, and what was chosen."""
        features, labels = train.features.cpu(), train.labels.cpu()
        check_batch(int((~held_out).sum()), batch_size=self.recipe.batch_size)
        out = torch.from_numpy(held_out)
        lr = self.lrs[len(self.lrs) // 2]
        if held_out.any():
            fitted = [(own, self.recipe.fit(features[~out], labels[~out], lr=own)) for own in self.lrs]
            lr = max((*self._quality(layer, features[out], labels[out]), -own) for own, layer in fitted)[2] * -1
        layer = self.recipe.fit(features, labels, lr=lr)
        if not bool(torch.isfinite(layer.weight).all()):
            raise InputError(
                f"the linear layer has diverged at a learning rate of {lr}, the best of {self.lrs}; give smaller "
                "evaluation.lrs, or evaluation.feature_norm=standardise."
            )
        chosen = {
            "lr": lr,
            "lrs": self.lrs,
            "batch_size": self.recipe.batch_size,
            "epochs": self.recipe.epochs,
            "optimizer": described(self.recipe.optimizer),
            "scheduler": described(self.recipe.scheduler),
            "init_std": self.recipe.init_std,
        }
        return lambda clips: layer.logits(clips.to(features)).double(), chosen

    def _quality(self, layer: SGDLayer, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return accuracy on videos, and the mean probability of their classes, which decides among equals."""
        scores = classify_views(features, lambda clips: layer.logits(clips).double(), self.average)
        if not bool(torch.isfinite(scores).all()):
            return -1.0, 0.0
        # Every class keeps a video to fit on, so that those held out are all known.
        targets = torch.searchsorted(layer.classes, labels)
        own = scores.gather(1, targets[:, None])
        return float((scores.argmax(dim=1) == targets).double().mean()), float(own.mean())
