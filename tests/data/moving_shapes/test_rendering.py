"""The drawn videos and their annotations, and that one frame does not tell the motion."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_video.data.moving_shapes.motions import MOTIONS
from ssl_video.data.moving_shapes.rendering import render_video
from ssl_video.data.moving_shapes.scene import COVERS_SCENE, SceneSettings
from ssl_video.data.moving_shapes.textures import APPEARANCES


def _grey(frames: np.ndarray) -> np.ndarray:
    """[N,T,H,W,3] to [N,T,H/4*W/4], block means of the luminance."""
    n, t, h, w, _ = frames.shape
    return frames.mean(axis=-1).reshape(n, t, h // 4, 4, w // 4, 4).mean(axis=(3, 5)).reshape(n, t, -1)


def _describe(frame: np.ndarray) -> np.ndarray:
    """What could give the motion away in frames [N,H,W,3]: the picture, its spectrum over scales, its statistics."""
    grey = frame.mean(axis=-1)
    grey = grey - grey.mean(axis=(1, 2), keepdims=True)
    spectrum = np.abs(np.fft.rfft2(grey)) ** 2
    side = grey.shape[1]
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    bands = [
        np.log(1.0 + spectrum[:, (radius >= low) & (radius < low + 0.05)].mean(axis=1))
        for low in np.arange(0, 0.5, 0.05)
    ]
    small = grey.reshape(len(grey), side // 8, 8, side // 8, 8).mean(axis=(2, 4)).reshape(len(grey), -1)
    return np.concatenate([small, np.stack(bands, axis=1), frame.std(axis=(1, 2))], axis=1)


def _accuracy(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> list[float]:
    """Held-out accuracies of a linear and a nearest-neighbour classifier."""
    return [
        float(
            make_pipeline(StandardScaler(), classifier)
            .fit(features[~test], labels[~test])
            .score(features[test], labels[test])
        )
        for classifier in (LogisticRegression(C=0.05, max_iter=200), KNeighborsClassifier(10))
    ]


def test_annotations_follow_the_drawn_object() -> None:
    settings = SceneSettings(
        size=48, num_frames=20, object_scale=0.5, camera_jitter=0.0, num_distractors=0, pixel_noise=0.0
    )
    video = render_video("still", "islands", settings=settings, video_seed=(1,))
    assert (video.frames == video.frames[0]).all() and (video.boxes == video.boxes[0]).all()
    video = render_video("steady", "islands", settings=settings, video_seed=(1,))
    assert 0.05 < video.masks.mean() < 0.5
    for mask, box, points in zip(video.masks, video.boxes, video.keypoints, strict=True):
        column, row = points[0, :2].astype(int)
        left, top, right, bottom = box.astype(int)
        assert points[0, 2] == 1 and mask[row, column]
        assert left <= column < right and top <= row < bottom
        assert mask[top:bottom, left:right].any(axis=0).all() and mask[top:bottom, left:right].any(axis=1).all()
        assert right - left <= 0.75 * 48 and bottom - top <= 0.75 * 48  # no more than half an octave above the scale
    steps = (np.diff(video.keypoints[:, 0, :2], axis=0) + 24) % 48 - 24
    assert np.allclose(steps, steps[0], atol=1e-3) and np.hypot(*steps[0]) > 0.5
    whole = render_video("steady", "islands", settings=SceneSettings(num_distractors=0, num_frames=3), video_seed=(1,))
    assert whole.masks.all() and (whole.boxes == [0, 0, 64, 64]).all() and SceneSettings().object_scale >= COVERS_SCENE


def test_distractors_hide_the_object_and_the_arguments_have_effect() -> None:
    plain = SceneSettings(num_frames=6, num_distractors=0, pixel_noise=0.0)
    video = render_video("circling", "cells", settings=plain, video_seed=(5,))
    crowded = render_video("circling", "cells", settings=replace(plain, num_distractors=3), video_seed=(5,))
    changed = (video.frames != crowded.frames).any(axis=-1)
    assert changed.any() and not crowded.masks[changed].any() and video.masks.all()
    flat = render_video("circling", "cells", settings=replace(plain, texture_contrast=0.1), video_seed=(5,))
    assert flat.frames.astype(float).std(axis=(1, 2)).mean() < 0.2 * video.frames.astype(float).std(axis=(1, 2)).mean()
    slow = render_video("circling", "cells", settings=replace(plain, speed=0.2), video_seed=(5,))
    change = [np.abs(np.diff(v.frames.astype(float), axis=0)).mean() for v in (video, slow)]
    assert change[1] < 0.6 * change[0]


@pytest.mark.slow
@pytest.mark.parametrize("object_scale", [1.5, 0.8])
def test_one_frame_does_not_tell_the_motion(object_scale: float) -> None:
    settings = SceneSettings(size=32, num_frames=33, object_scale=object_scale, pixel_noise=0.0)
    count, motions = 400, len(MOTIONS)
    labels = np.arange(count) % motions
    rendered = [
        render_video(MOTIONS[label], APPEARANCES[i // motions % 5], settings=settings, video_seed=(7, i))
        for i, label in enumerate(labels)
    ]
    frames = np.stack([video.frames for video in rendered])
    test = np.arange(count) >= count // 2
    # Three standard errors; 6 accuracies are asked.
    bound = 1 / motions + 3.0 * math.sqrt(1 / motions * (1 - 1 / motions) / test.sum())
    for moment in (0, 16, 32):
        assert max(_accuracy(_describe(frames[:, moment]), labels, test)) < bound, moment
    # Control: the same classifier on the same videos sees the motion in how much the frames change.
    change = np.abs(np.diff(_grey(frames), axis=1))
    moved = np.sort(change.mean(axis=2), axis=1)
    assert max(_accuracy(moved, labels, test)) > 2.0 / motions
