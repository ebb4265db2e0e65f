"""What fine-tuning and the linear probe with augmentation share: a classifier on a backbone, trained on clips."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.evaluation.clips import NUM_CROPS, Crops
from ssl_video.evaluation.features import ProtocolResult
from ssl_video.evaluation.linear_layer import hold_out
from ssl_video.evaluation.training import Seconds, TrainingData, check_batch, check_trainable
from ssl_video.evaluation.video_scores import VideoScores, score_videos, view_features
from ssl_video.metrics.averaging import Averaged
from ssl_video.metrics.classification import balanced_accuracy, topk_hits
from ssl_video.modules.clip_classifier import ClipClassifier
from ssl_video.optim.parameter_groups import apply_lr_factors
from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import with_progress

TIMED_STEPS = 4


@dataclass(kw_only=True)
class TrainedClassifier(ABC):
    """A linear classifier on a backbone, trained with cross entropy on clips of the train part.

    A test video's score is the mean over its views, clips times crops. Nothing is chosen on the test part: the last
    step counts, or, with `select=best_on_validation`, the epoch with the smallest loss on videos that were held out of
    the train part, whole groups where there are groups, seen through one clip from their middle.

    The backbone that is given stays as it is; a copy is trained. It runs in one process, and gives the same result for
    the same seed whatever the number of workers (on a GPU up to the order in which it sums).

    Args:
        train_sampler: chooses the frames of the training clips.
        train_transform: makes the clips.
        optimizer: makes the optimizer from parameter groups.
        scheduler: makes the schedule from the optimizer, `total_steps` and `steps_per_epoch`; stepped after each step.
        batch_size: videos per step; an epoch's last incomplete batch is left out.
        epochs: length of the training; or
        steps: the same in optimizer steps.
        dropout: before the classifier.
        init_std: standard deviation of the classifier's first weights; None leaves torch's default.
        gradient_clip: largest norm of the gradient; None for any.
        select: `last`, or `best_on_validation`, see above.
        val_fraction: share of the train videos held out, where something is chosen.
        validation_videos: their number instead.
        test_sampler: chooses the frames of the test clips; None takes `test_clips` of the training clips' length,
            evenly spread.
        test_transform: makes the test clips; None takes the checkpoint's own input transform.
        test_clips: per test video.
        test_crops: per test clip.
        average: what is averaged over the views: `probabilities`, `logits` or `features`.
        seed: of the first weights, the order, the clips, the augmentation, dropout and the videos held out.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    train_sampler: Any
    train_transform: Any
    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    scheduler: Callable[..., LRScheduler]
    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    dropout: float = 0.0
    init_std: float | None = None
    gradient_clip: float | None = None
    select: Literal["last", "best_on_validation"] = "last"
    val_fraction: float = 0.1
    validation_videos: int | None = None
    test_sampler: Any = None
    test_transform: Any = None
    test_clips: int = 10
    test_crops: Crops = "centre"
    average: Averaged = "probabilities"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that fit no training."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}: give one of them.")
        for name, number in (("batch_size", self.batch_size), ("test_clips", self.test_clips)):
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1.")
        if (self.epochs or self.steps or 0) <= 0:
            raise ValueError(f"epochs={self.epochs}, steps={self.steps} must be above 0; a classifier has to learn.")
        if not 0 < self.val_fraction <= 0.5:
            raise ValueError(f"val_fraction={self.val_fraction} must lie in (0, 0.5]; the larger part is learnt from.")
        own_clips = getattr(self.test_sampler, "num_views", self.test_clips)
        if own_clips != self.test_clips:
            raise ValueError(f"test_clips={self.test_clips} must equal test_sampler.num_views={own_clips}.")

    @abstractmethod
    def make_classifier(self, backbone: Backbone, *, num_classes: int) -> ClipClassifier:
        """Return a new classifier on `backbone`, which is this protocol's own copy."""

    @abstractmethod
    def parameter_groups(self, classifier: ClipClassifier) -> list[dict[str, Any]]:
        """Return the optimizer's groups, with an `lr_factor` where a group has a rate of its own."""

    @abstractmethod
    def prepare(self, classifier: ClipClassifier) -> None:
        """Set dropout and norms for training."""

    def __call__(
        self, backbone: Backbone, data: TrainingData, *, num_classes: int, device: torch.device
    ) -> ProtocolResult:
        """Train on a copy of `backbone`, classify the test videos.

        Raises:
            InputError: no labels, one class, an empty part, fewer videos than a batch, or a training that diverged.
        """
        check_trainable(data, num_classes=num_classes)
        fitted, held_out = self._parts(data)
        with seeded(self.seed, device):
            classifier = self.make_classifier(deepcopy(backbone), num_classes=num_classes).to(device)
            history = self._fit(classifier, data, fitted, held_out, device)
            scored = self._score(classifier, self._test_batches(data), device)
        if not bool(torch.isfinite(scored.probabilities).all()):
            raise InputError(
                f"{self.name}: the training has diverged, its scores are not finite; lower evaluation.optimizer.lr."
            )
        # A class without a training video is never named.
        unseen = np.setdiff1d(np.arange(num_classes), data.train.labels)
        scores = scored.probabilities.index_fill(1, torch.from_numpy(unseen), -torch.inf)
        hits = {f"top{place}": topk_hits(scores, scored.labels, k=place).double().numpy() for place in (1, 5)}
        metrics = {metric: float(np.mean(values)) for metric, values in hits.items()}
        predictions = scores.argmax(dim=1)
        metrics["balanced_accuracy"] = balanced_accuracy(predictions, scored.labels)
        return ProtocolResult(
            metrics=metrics,
            per_video=hits,
            settings=self._settings() | {"steps": history.steps, "validation_videos": len(held_out)},
            predictions=predictions.numpy(),
            details=history.details() | ({"unreadable_rows": scored.unreadable} if scored.unreadable else {}),
        )

    def predict_seconds(
        self, backbone: Backbone, data: TrainingData, *, num_classes: int, device: torch.device
    ) -> Seconds:
        """Return how long the call will take on this backbone, from a few steps on a copy of it.

        Raises:
            InputError: as the call does.
        """
        check_trainable(data, num_classes=num_classes)
        fitted, held_out = self._parts(data)
        steps, steps_per_epoch = self._steps(len(fitted))
        with seeded(self.seed, device):
            classifier = self.make_classifier(deepcopy(backbone), num_classes=num_classes).to(device)
            optimizer = apply_lr_factors(self.optimizer(self.parameter_groups(classifier)))
            batches = data.train_batches(
                fitted, batch_size=self.batch_size, num_batches=min(steps, 1 + TIMED_STEPS), seed=self.seed
            )
            self.prepare(classifier)
            # As numbers: a GPU is done with a step only when its result is asked for.
            per_step = seconds_each(float(self._step(classifier, optimizer, batch.to(device))) for batch in batches)
            classifier.eval()
            with torch.inference_mode():
                per_batch = seconds_each(
                    float(view_features(classifier, batch, device=device, at_once=self.batch_size).sum())
                    for batch in self._test_batches(data)
                    if len(batch)
                )
        per_view = per_batch / (self._test_batch_size() * self._test_views())
        views = len(data.test) * self._test_views() + len(held_out) * -(-steps // steps_per_epoch)
        return Seconds(per_step=per_step, steps=steps, testing=per_view * views)

    def _parts(self, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that are learnt from and those that are chosen on."""
        train = data.train
        if self.select == "last":
            check_batch(len(train), batch_size=self.batch_size)
            return train.rows, train.rows[:0]
        fraction = self.val_fraction if self.validation_videos is None else self.validation_videos / len(train)
        held_out = hold_out(train.labels, train.groups, fraction=fraction, seed=self.seed)
        if not held_out.any():
            raise InputError(
                f"select={self.select} needs train videos to choose on, and of {len(train)} none can be held out: "
                "each class, and more than half of the videos, must stay. Use evaluation.select=last."
            )
        check_batch(int((~held_out).sum()), batch_size=self.batch_size)
        return train.rows[~held_out], train.rows[held_out]

    def _steps(self, num_videos: int) -> tuple[int, int]:
        """Return the number of steps in all, and in an epoch."""
        steps_per_epoch = num_videos // self.batch_size
        if self.steps is not None:
            return self.steps, steps_per_epoch
        assert self.epochs is not None
        return max(1, round(self.epochs * steps_per_epoch)), steps_per_epoch

    def _fit(
        self,
        classifier: ClipClassifier,
        data: TrainingData,
        fitted: np.ndarray,
        held_out: np.ndarray,
        device: torch.device,
    ) -> "_History":
        """Train `classifier`; it ends with the weights of the last step, or of the best epoch."""
        steps, steps_per_epoch = self._steps(len(fitted))
        optimizer = apply_lr_factors(self.optimizer(self.parameter_groups(classifier)))
        scheduler = self.scheduler(optimizer, total_steps=steps, steps_per_epoch=steps_per_epoch)
        batches = data.train_batches(fitted, batch_size=self.batch_size, num_batches=steps, seed=self.seed)
        history = _History(steps=steps, steps_per_epoch=steps_per_epoch)
        best: dict[str, Tensor] = {}
        self.prepare(classifier)
        for step, batch in enumerate(with_progress(batches, total=steps, title=self.name, unit="step"), start=1):
            # Dropout takes no generator; seeded here it follows from the step, whatever the loader drew.
            torch.manual_seed(self.seed * 1_000_003 + step)
            history.add(self._step(classifier, optimizer, batch.to(device)), replaced=len(batch.failures))
            scheduler.step()
            if len(held_out) and (step % steps_per_epoch == 0 or step == steps):
                if history.add_validation(self._validation_loss(classifier, data, held_out, device)):
                    best = deepcopy(classifier.state_dict())
                self.prepare(classifier)
        if best:
            classifier.load_state_dict(best)
        return history

    def _step(self, classifier: ClipClassifier, optimizer: Optimizer, batch: ClipBatch) -> Tensor:
        """Take one optimizer step, each clip a sample with the label of its video; return the loss."""
        clips = batch.clips.flatten(0, 1)
        classifier.backbone.check_clips(clips)  # type: ignore[operator]
        loss = cross_entropy(classifier(clips), batch.labels.repeat_interleave(batch.clips.shape[1]))
        optimizer.zero_grad()
        loss.backward()
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), self.gradient_clip)
        optimizer.step()
        return loss.detach()

    def _validation_loss(
        self, classifier: ClipClassifier, data: TrainingData, rows: np.ndarray, device: torch.device
    ) -> float:
        """Return the mean cross entropy of the videos held out, one clip from the middle of each."""
        batches = data.test_batches(rows, num_clips=1, crops="centre", batch_size=self.batch_size)
        scored = self._score(classifier, batches, device)
        own = scored.probabilities.gather(1, scored.labels[:, None])
        return float(-own.clamp_min(torch.finfo(own.dtype).tiny).log().mean())

    def _score(self, classifier: ClipClassifier, batches: Iterable[ClipBatch], device: torch.device) -> VideoScores:
        return score_videos(classifier, batches, device=device, average=self.average, at_once=self.batch_size)

    def _test_views(self) -> int:
        return self.test_clips * NUM_CROPS[self.test_crops]

    def _test_batch_size(self) -> int:
        """Return the number of test videos that have about as many clips as a training batch."""
        return max(1, self.batch_size // self._test_views())

    def _test_batches(self, data: TrainingData) -> Iterable[ClipBatch]:
        return data.test_batches(
            data.test.rows, num_clips=self.test_clips, crops=self.test_crops, batch_size=self._test_batch_size()
        )

    def _settings(self) -> dict[str, Any]:
        """Return all that was set, in plain values."""
        return {own.name: described(getattr(self, own.name)) for own in fields(self)}


@dataclass
class _History:
    """What happened on the way.

    Attributes:
        steps: of the whole training.
        steps_per_epoch: the last epoch may have fewer.
        losses: of the steps so far.
        validation: loss of the videos held out, after each epoch so far.
        replaced: training videos that could not be read any more, for which others came.
    """

    steps: int
    steps_per_epoch: int
    losses: list[Tensor] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    replaced: int = 0

    def add(self, loss: Tensor, *, replaced: int) -> None:
        """Note one step."""
        self.losses.append(loss)
        self.replaced += replaced

    def add_validation(self, loss: float) -> bool:
        """Note an epoch's loss on the videos held out; return whether it is the smallest so far."""
        smallest = min((known for known in self.validation if math.isfinite(known)), default=math.inf)
        self.validation.append(loss)
        return loss < smallest

    def details(self) -> dict[str, Any]:
        """Return the curves, and the epoch that was chosen (from 1), if one was."""
        epochs = [torch.stack(part) for part in _chunks(self.losses, self.steps_per_epoch)]
        told: dict[str, Any] = {"loss_per_epoch": [float(losses.mean()) for losses in epochs]}
        if self.validation:
            told["validation_loss_per_epoch"] = self.validation
            told["chosen_epoch"] = 1 + int(np.nanargmin(self.validation))
        return told | ({"replaced_videos": self.replaced} if self.replaced else {})


def _chunks(values: list[Tensor], size: int) -> list[list[Tensor]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators for a block and restores them: first weights and dropout take no generator."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def seconds_each(results: Iterable[object]) -> float:
    """Return the mean seconds that each of the first few results takes; the very first warms up."""
    times = [time.monotonic()]
    times += [time.monotonic() for _ in islice(results, 1 + TIMED_STEPS)]
    if len(times) < 3:
        return times[-1] - times[0]
    return (times[-1] - times[1]) / (len(times) - 2)


def described(value: Any) -> Any:
    """Return a setting in plain values: of an object its class and what it holds."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, Tensor):
        return [float(f"{number:.7g}") for number in value.flatten().tolist()]  # float32 holds no more
    if isinstance(value, nn.Module):  # a transform of torchvision, which tells its settings
        return " ".join(repr(value).split())
    if isinstance(value, partial):
        return {"name": value.func.__name__, **{name: described(own) for name, own in value.keywords.items()}}
    held = {name.removeprefix("_"): described(own) for name, own in getattr(value, "__dict__", {}).items()}
    return {"name": type(value).__name__, **held}
