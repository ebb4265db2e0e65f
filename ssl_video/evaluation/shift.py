"""How much of what a probe reads out of clean clips is left when clips are spoilt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ssl_video.evaluation.class_read_out import ClassReadOut, ReadOut
from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.features import (
    FeatureSet,
    ProtocolResult,
    check_classes,
    check_labelled,
    check_num_clips,
)

# Those of ssl_video.data.transforms.corruptions.
KINDS = ("gaussian_noise", "gaussian_blur", "jpeg_compression", "brightness", "frame_drop", "frame_rate")
SEVERITIES = (1, 2, 3, 4, 5)
NOT_HELD_OUT = (
    "gaussian_blur and brightness are near to what ContrastiveTransform draws in training (blur_probability, "
    "color_jitter); they are not held out for a method that is trained with it"
)


class Shift:
    """Fits a probe on clean train clips and asks it on clean and on spoilt test clips.

    `top1` is of clean clips, `top1_<kind>` the mean over the severities of a corruption, `relative_drop_<kind>` the
    share of `top1` that is lost, 1 - top1_<kind> / top1, and `mean_relative_drop` its mean over the corruptions. It is
    negative where spoilt clips do better by chance. Where no clean video is right there is nothing to lose: the
    relative drops are left out, and the settings say so; where it is hardly above chance they are noise.

    The probe is the vote of the nearest neighbours by default: nothing is fitted or chosen, so what falls is the
    features alone. The corruptions and their severities are those of ImageNet-C (Hendrycks & Dietterich, ICLR 2019),
    and two that act on time; see `ssl_video.data.transforms.corruptions`, also for which are held out.

    Args:
        read_out: knn or linear, as the protocols of these names read classes.
        kinds: of corruption.
        severities: of each, 1 to 5.
        num_clips: evenly spread clips per video.
        k: knn: train videos that vote.
        temperature: knn: of the weights exp(cosine / temperature).
        strengths: linear: of the penalty, to choose from.
        val_fraction: linear: share of the train videos held out for the choice.
        max_iterations: linear: of L-BFGS for each fit.
        seed: linear: of the videos held out.
    """

    name: ClassVar[str] = "shift"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        read_out: ReadOut = "knn",
        kinds: Sequence[str] = KINDS,
        severities: Sequence[int] = SEVERITIES,
        num_clips: int = 1,
        k: int = 20,
        temperature: float = 0.07,
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        val_fraction: float = 0.1,
        max_iterations: int = 200,
        seed: int = 0,
    ) -> None:
        if not kinds or set(kinds) - set(KINDS):
            raise ValueError(f"kinds={list(kinds)} must hold some of {', '.join(KINDS)}.")
        if not severities or set(severities) - set(SEVERITIES):
            raise ValueError(f"severities={list(severities)} must hold some of 1, 2, 3, 4, 5.")
        check_num_clips(num_clips)
        self.kinds = list(dict.fromkeys(kinds))
        self.severities = sorted(set(severities))
        self.num_clips = num_clips
        self.read_out = ClassReadOut(
            read_out=read_out,
            k=k,
            temperature=temperature,
            strengths=strengths,
            val_fraction=val_fraction,
            max_iterations=max_iterations,
            seed=seed,
        )

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return clean clips of either part, of test also each corruption at each severity."""
        clean = ClipSpec(num_clips=self.num_clips)
        if part == "train":
            return {NORMAL: clean}
        return {NORMAL: clean} | {
            _name(kind, severity): replace(clean, corruption=kind, severity=severity)
            for kind in self.kinds
            for severity in self.severities
        }

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Fit on the videos of `train`, classify those of `test` in every state.

        Raises:
            InputError: an empty part, videos without a label, features that are not finite, a train part of one class.
        """
        check_labelled(train, test, num_classes=num_classes)
        check_classes(train)
        ask = self.read_out.fit(train, num_classes=num_classes)
        labels = test.labels.cpu().numpy()
        answers = ask(replace(test, altered={}))
        clean = (answers.predictions == labels).astype(np.float64)
        per_video, table = {"top1": clean}, [_row("clean", 0, clean)]
        for kind in self.kinds:
            spoilt = []
            for severity in self.severities:
                state = replace(test, features=test.altered[_name(kind, severity)], altered={})
                spoilt.append((ask(state).predictions == labels).astype(np.float64))
                table.append(_row(kind, severity, spoilt[-1]))
            per_video[f"top1_{kind}"] = np.mean(spoilt, axis=0)
        metrics = {metric: float(np.mean(values)) for metric, values in per_video.items()}
        metrics |= self._relative_drops(metrics)
        settings: dict[str, Any] = {
            **self.read_out.settings(),
            **answers.chosen,
            "kinds": self.kinds,
            "severities": self.severities,
            "num_clips": train.num_clips,
            "not_held_out": NOT_HELD_OUT,
        }
        if metrics["top1"] == 0:
            settings["left_out"] = {"mean_relative_drop": "no clean video is right, so there is nothing to lose"}
        return ProtocolResult(
            metrics=metrics,
            per_video=per_video,
            settings=settings,
            predictions=answers.predictions,
            details={"severities": table},
        )

    def _relative_drops(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return the share of the clean accuracy that each corruption takes, and their mean; nothing where it is 0."""
        if metrics["top1"] == 0:
            return {}
        drops = {f"relative_drop_{kind}": 1 - metrics[f"top1_{kind}"] / metrics["top1"] for kind in self.kinds}
        return {**drops, "mean_relative_drop": float(np.mean(list(drops.values())))}


def _name(kind: str, severity: int) -> str:
    return f"{kind}_{severity}"


def _row(kind: str, severity: int, hits: np.ndarray) -> dict[str, Any]:
    return {"kind": kind, "severity": severity, "top1": float(np.mean(hits))}
