"""Does the representation use time: what it loses when time is altered, and what it says about time itself."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_video.evaluation.class_read_out import ClassReadOut, ReadOut, as_array
from ssl_video.evaluation.clips import NORMAL, ClipSpec, Order, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_features
from ssl_video.evaluation.linear_layer import LinearLayer, choose_strength, fit_linear_layer, hold_out
from ssl_video.metrics.classification import balanced_accuracy
from ssl_video.utils.errors import InputError

FitOn = Literal["normal", "same"]
Array = NDArray[np.float64]

ALTERED: tuple[Order, ...] = ("frozen", "shuffled", "reversed")
TIME_QUESTIONS = ("arrow_of_time", "speed", "order")


VIDEOS_AT_A_TIME = 1024


class TemporalProbes:
    """The same classifier on normal, frozen, shuffled and reversed clips, and three questions about time itself.

    Where there are labels: a classifier is fitted on the normal clips of the train videos and asked about the test
    videos as they are (`top1`), with the middle frame of each clip held (`top1_frozen`), with its frames in a drawn
    order (`top1_shuffled`) and backwards (`top1_reversed`). `drop_<state>` is `top1` less that, video by video. A drop
    of 0 says that the answer does not use what was altered. With `fit_on=same` the classifier is fitted on train clips
    in the same state: then `top1_frozen` is what a single frame tells, and the drop what time adds to it.

    From features alone, by a linear layer fitted on train videos, as the share of right answers, chance in brackets:

    - `arrow_of_time`: does this clip run forwards or backwards? (1/2)
    - `speed`: at which of the `stride_factors` was this clip shown? (1 / their number)
    - `order`: of two clips of a video, which comes first? Asked of the difference of their features. (1/2)

    Every clip (pair) is asked about in every state, so features that say nothing of time come to chance exactly. A
    video's value is its share of right answers. Videos shorter than a clip are left out of `arrow_of_time` and
    `speed`, and counted: their last frame repeats, and a standstill would give away the direction and the speed.
    Speed is also told by what the codec does to fast motion, and direction by what happens only one way in these
    videos; a net that reads them uses time all the same.

    Args:
        num_clips: evenly spread clips per video, at least 2.
        fit_on: normal, or same: train clips in the state asked about.
        stride_factors: of `speed`, two or more, 1 among them; each multiplies the distance between frames.
        read_out: of the classes: linear or knn, as the protocols `linear_probe` and `knn`.
        k: knn: train videos that vote.
        temperature: knn: of the weights exp(cosine / temperature).
        strengths: linear, and of the three questions: of the penalty, to choose from on held-out train videos.
        val_fraction: share of the train videos held out for that choice.
        max_iterations: of L-BFGS for each fit.
        max_fit_videos: the three questions are fitted on no more train videos than this, drawn where there are more.
        seed: of the draws.
    """

    name: ClassVar[str] = "temporal_probes"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_clips: int = 5,
        fit_on: FitOn = "normal",
        stride_factors: Sequence[int] = (1, 2),
        read_out: ReadOut = "linear",
        k: int = 20,
        temperature: float = 0.07,
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        val_fraction: float = 0.1,
        max_iterations: int = 200,
        max_fit_videos: int = 2000,
        seed: int = 0,
    ) -> None:
        if num_clips < 2:
            raise ValueError(f"num_clips={num_clips} must be at least 2; which of two clips comes first is asked.")
        if fit_on not in get_args(FitOn):
            raise ValueError(f"fit_on={fit_on!r} must be one of {', '.join(get_args(FitOn))}.")
        factors = sorted(set(stride_factors))
        if len(factors) < 2 or factors[0] != 1:
            raise ValueError(f"stride_factors={list(stride_factors)} must be two or more whole numbers, 1 among them.")
        if max_fit_videos < 2:
            raise ValueError(f"max_fit_videos={max_fit_videos} must be at least 2.")
        self.num_clips = num_clips
        self.fit_on: FitOn = fit_on
        self.stride_factors = factors
        self.max_fit_videos = max_fit_videos
        self.classes = ClassReadOut(
            read_out=read_out,
            k=k,
            temperature=temperature,
            strengths=strengths,
            val_fraction=val_fraction,
            max_iterations=max_iterations,
            seed=seed,
        )

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips as they are, in the states asked about, and at the other speeds."""
        normal = ClipSpec(num_clips=self.num_clips)
        states = ALTERED if part == "test" or self.fit_on == "same" else ("reversed",)
        return (
            {NORMAL: normal}
            | {state: replace(normal, order=state) for state in states}
            | {_speed(factor): replace(normal, stride_factor=factor) for factor in self.stride_factors[1:]}
        )

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Fit on the videos of `train`, ask about those of `test`.

        Raises:
            InputError: an empty part, features that are not finite, or videos of which nothing can be asked.
        """
        check_features(train, test)
        result = ProtocolResult(metrics={}, settings=self._settings(train))
        left_out: dict[str, str] = {}
        self._ask_classes(train, test, num_classes, result, left_out)
        self._ask_time(train, test, result, left_out)
        if not result.per_video:
            reasons = "; ".join(f"{metric}: {reason}" for metric, reason in left_out.items())
            raise InputError(f"nothing can be asked of these videos: {reasons}. Give more videos to train.")
        result.metrics = {metric: float(np.mean(values)) for metric, values in result.per_video.items()}
        if left_out:
            result.settings["left_out"] = left_out
        return result

    def _settings(self, train: FeatureSet) -> dict[str, Any]:
        return {
            **replace(self.classes, read_out="linear").settings(),  # of the questions about time
            **self.classes.settings(),
            "num_clips": train.num_clips,
            "fit_on": self.fit_on,
            "stride_factors": self.stride_factors,
            "max_fit_videos": self.max_fit_videos,
            "chance": {"arrow_of_time": 0.5, "speed": 1 / len(self.stride_factors), "order": 0.5},
            "strengths": {},
            "videos": {},
        }

    # --- classes ------------------------------------------------------------------------------------------------------

    def _ask_classes(
        self, train: FeatureSet, test: FeatureSet, num_classes: int, result: ProtocolResult, left_out: dict[str, str]
    ) -> None:
        """Add top-1 in every state, over the labelled test videos."""
        train, test = (_labelled(part) for part in (train, test))
        seen = len(train.labels.unique())
        if len(test) == 0 or seen < 2:
            left_out["top1"] = (
                f"classes are asked of altered clips where there are labels; {seen} classes in train and {len(test)} "
                "labelled test videos are not enough"
            )
            return
        ask = self.classes.fit(replace(train, altered={}), num_classes=num_classes)
        labels = test.labels.cpu()
        table = []
        for state in (NORMAL, *ALTERED):
            if state != NORMAL and self.fit_on == "same":
                ask = self.classes.fit(_in_state(train, state), num_classes=num_classes)
            answers = ask(_in_state(test, state))
            hits = (answers.predictions == labels.numpy()).astype(np.float64)
            balanced = balanced_accuracy(torch.from_numpy(answers.predictions), labels)
            table.append(
                {"state": state, "top1": float(np.mean(hits)), "balanced_accuracy": balanced, **answers.chosen}
            )
            if state == NORMAL:
                result.per_video["top1"] = hits
            else:
                result.per_video[f"top1_{state}"] = hits
                result.per_video[f"drop_{state}"] = result.per_video["top1"] - hits
        result.settings["videos"]["top1"] = {"train": len(train), "test": len(test)}
        result.settings["chance"]["top1"] = 1 / num_classes
        result.details["states"] = table

    # --- time ---------------------------------------------------------------------------------------------------------

    def _ask_time(self, train: FeatureSet, test: FeatureSet, result: ProtocolResult, left_out: dict[str, str]) -> None:
        """Add the three questions, each over the test videos that it can be asked about."""
        for question in TIME_QUESTIONS:
            fit_on, asked = (_long_enough(part, self._must_fit(question)) for part in (train, test))
            if len(fit_on) < 2 or len(asked) == 0:
                left_out[question] = (
                    f"{len(fit_on)} train and {len(asked)} test videos are as long as a clip; 2 and 1 are needed"
                )
                continue
            fit_on = fit_on[_drawn(len(fit_on), self.max_fit_videos, seed=self.classes.seed)]
            layer, strength = self._fit(question, train.select(fit_on))
            hits = np.concatenate(
                [self._answer(question, layer, test.select(block)) for block in asked.split(VIDEOS_AT_A_TIME)], axis=1
            )
            result.per_video[question] = hits.mean(axis=(0, 2))
            result.settings["strengths"][question] = strength
            result.settings["videos"][question] = {"train": len(fit_on), "test": len(asked)}
            if question == "speed":
                shares = dict(zip(map(str, self.stride_factors), hits.mean(axis=(1, 2)).tolist(), strict=True))
                result.details["speed_by_stride_factor"] = shares

    def _must_fit(self, question: str) -> list[str]:
        """Names of the clips in which repeated frames would give the answer away."""
        speeds = [_speed(factor) for factor in self.stride_factors[1:]]
        return {"arrow_of_time": [NORMAL], "speed": [NORMAL, *speeds], "order": []}[question]

    def _states(self, question: str, videos: FeatureSet) -> Array:
        """Return the clips in the K states to tell apart, `[K, N, V, D]`: each clip (pair) once in every state."""
        normal = as_array(videos)
        if question == "order":
            # Clips come in the order of the video. Every pair stands both ways round, so that the layer comes out as an
            # odd function of the difference, and cannot know anything but which of the two is later.
            first, second = (list(places) for places in zip(*combinations(range(normal.shape[1]), 2), strict=True))
            difference = normal[:, second] - normal[:, first]
            return np.stack([difference, -difference])
        names = ["reversed"] if question == "arrow_of_time" else [_speed(factor) for factor in self.stride_factors[1:]]
        return np.stack([normal, *(as_array(_in_state(videos, name)) for name in names)])

    def _fit(self, question: str, train: FeatureSet) -> tuple[LinearLayer, float]:
        """Return a layer that tells the states apart, and the strength chosen for it."""
        states = self._states(question, train)
        num_states, num_videos = states.shape[:2]
        features = states.reshape(num_states * num_videos, *states.shape[2:])
        labels = np.repeat(np.arange(num_states), num_videos)
        # All states of a video, or of a group of them, are held out together.
        units = [group or name for group, name in zip(train.groups, train.video_ids, strict=True)] * num_states
        own = self.classes
        held_out = hold_out(labels, units, fraction=own.val_fraction, seed=own.seed)
        strengths = sorted(float(strength) for strength in own.strengths)
        strength = choose_strength(features, labels, held_out, strengths=strengths, max_iterations=own.max_iterations)
        return fit_linear_layer(features, labels, strength=strength, max_iterations=own.max_iterations), strength

    def _answer(self, question: str, layer: LinearLayer, test: FeatureSet) -> Array:
        """Return which questions are answered right, `[K, N, V]` of 0 and 1; each clip (pair) is one of its own."""
        states = self._states(question, test)
        scores = layer.probabilities(states.reshape(-1, 1, states.shape[-1]), num_classes=len(states))
        right = scores.argmax(axis=1).reshape(states.shape[:3]) == np.arange(len(states))[:, None, None]
        return np.asarray(right, dtype=np.float64)


def _labelled(videos: FeatureSet) -> FeatureSet:
    """Return the videos that have a label; features stay in their file unless some must be left out."""
    kept = videos.labels >= 0
    return videos if bool(kept.all()) else videos.select(kept)


def _speed(factor: int) -> str:
    return f"speed_{factor}"


def _in_state(videos: FeatureSet, state: str) -> FeatureSet:
    """Return the videos seen through the clips of one state only."""
    features = videos.features if state == NORMAL else videos.altered[state]
    return replace(videos, features=features, altered={})


def _long_enough(videos: FeatureSet, states: Sequence[str]) -> torch.Tensor:
    """Return the numbers of the videos in none of whose clips, in these states, frames repeat."""
    short = torch.zeros(len(videos), dtype=torch.bool)
    for state in states:
        short |= videos.too_short.get(state, torch.zeros_like(short))
    return (~short).nonzero()[:, 0]


def _drawn(number: int, most: int, *, seed: int) -> torch.Tensor:
    """Return which of `number` videos are fitted on, ascending: all, or a draw of `most`."""
    if number <= most:
        return torch.arange(number)
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(number, size=most, replace=False)))
