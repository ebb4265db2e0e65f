"""The embedded data set: its files, its determinism, and that one frame does not tell the motion."""

import csv
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_video.data import moving_shapes
from ssl_video.data.moving_shapes import (
    ALL_MOTIONS,
    APPEARANCES,
    COVERS_SCENE,
    MOTIONS,
    SceneSettings,
    make_moving_shapes,
    plan,
    render_video,
)
from ssl_video.utils.errors import InputError


def _decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _labels(root: Path) -> list[dict[str, str]]:
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_moving_shapes(root, num_videos=8, size=32, num_frames=14, object_scale=0.8, num_workers=1, seed=3)
    return root


def test_files_and_table(small: Path) -> None:
    rows = _labels(small)
    assert list(rows[0]) == ["path", "motion", "appearance", "split", "group"]
    assert len(rows) == 8 and len({row["group"] for row in rows}) == 8
    assert sorted(path.name for path in small.iterdir()) == ["annotations", "labels.csv", "videos"]
    for row in rows:
        frames = _decode(small / row["path"])
        assert frames.shape == (14, 32, 32, 3)
        with np.load(small / "annotations" / f"{Path(row['path']).stem}.npz") as notes:
            assert notes["masks"].shape == (14, 32, 32) and notes["masks"].dtype == bool
            assert notes["boxes"].shape == (14, 4) and notes["keypoints"].shape == (14, 5, 3)


def test_files_are_h264_without_reordering_and_near_the_drawn_frames(small: Path) -> None:
    row = _labels(small)[0]
    with av.open(str(small / row["path"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and float(stream.average_rate) == 25.0
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert all(packet.pts == packet.dts for packet in packets)
        assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 12]
    drawn = render_video(
        row["motion"],
        row["appearance"],
        settings=SceneSettings(size=32, num_frames=14, object_scale=0.8),
        video_seed=(3, 3, int(Path(row["path"]).stem)),
        bank_seed=3,
    )
    luminance = np.array([0.299, 0.587, 0.114])  # the codec halves the colours' resolution, not the luminance's
    decoded, original = _decode(small / row["path"]) @ luminance, drawn.frames @ luminance
    assert np.abs(decoded - original).mean() < 4.0
    assert np.abs(decoded[1:] - original[:-1]).mean() > np.abs(decoded - original).mean()


def test_equal_arguments_give_equal_files_with_any_number_of_processes(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        make_moving_shapes(tmp_path / name, num_videos=10, size=32, num_frames=8, num_workers=workers, seed=1)
    make_moving_shapes(tmp_path / "other", num_videos=10, size=32, num_frames=8, num_workers=1, seed=2)
    one, two, other = (_labels(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    for row in one:
        assert np.array_equal(_decode(tmp_path / "one" / row["path"]), _decode(tmp_path / "two" / row["path"]))
    assert not np.array_equal(
        _decode(tmp_path / "one" / one[0]["path"]), _decode(tmp_path / "other" / other[0]["path"])
    )


def test_complete_folder_is_left_alone_and_a_foreign_one_refused(small: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    make_moving_shapes(small, num_videos=8, size=32, num_frames=14, object_scale=0.8, num_workers=1, seed=3)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"own exists and has no labels\.csv"):
        make_moving_shapes(tmp_path / "own", num_videos=1)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(moving_shapes, "write_mp4", fail)
    with pytest.raises(OSError, match="disk full"):
        make_moving_shapes(tmp_path / "shapes", num_videos=2, size=32, num_frames=4, num_workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"motions": ["steady", "flying"]}, "flying"),
        ({"motions": []}, r"motions=\[\]"),
        ({"num_videos": 0}, "num_videos=0 must be at least 1"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
        ({"size": 33}, "size=33 must be even"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"object_scale": 0.0}, "object_scale=0.0"),
        ({"textures_per_appearance": 0}, "textures_per_appearance=0"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_moving_shapes(tmp_path / "shapes", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_videos", [600, 250])
def test_labels_and_split_are_independent(num_videos: int) -> None:
    rows = plan(num_videos=num_videos)
    cells = Counter((row.motion, row.appearance) for row in rows)
    assert len(cells) == len(MOTIONS) * len(APPEARANCES) and max(cells.values()) - min(cells.values()) <= 1
    assert sum(row.split == "test" for row in rows) == num_videos // 200 * 40
    for split in ("train", "test"):
        part = [row for row in rows if row.split == split]
        table = np.array(
            [[sum(r.motion == m and r.appearance == a for r in part) for a in APPEARANCES] for m in MOTIONS]
        )
        assert table.max() - table.min() <= 1
        assert chi2_contingency(table).pvalue > 0.99
    assert rows == plan(num_videos=num_videos) != plan(num_videos=num_videos, seed=1)


def test_few_videos_have_a_test_part_too() -> None:
    """Fewer than balance every pair of labels are split video by video."""
    rows = plan(num_videos=80)
    assert sum(row.split == "test" for row in rows) == 16


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


@pytest.mark.parametrize(("forward", "backward"), [("growing", "shrinking"), ("accelerating", "decelerating")])
def test_paths_are_each_others_reversal(forward: str, backward: str) -> None:
    """The steps of one, last first and with the sign turned, are a path of the other: same law, another phase."""
    times = np.arange(200.0)
    paths = [moving_shapes._path(m, times, SceneSettings(), np.random.default_rng(4)) for m in (forward, backward)]
    growth = [np.diff(path[:, 3]) for path in paths]
    speed = [np.hypot(*np.diff(path[:, :2], axis=0).T) for path in paths]
    assert np.allclose(growth[0], -growth[1], atol=1e-9)
    gains = [np.diff(s) for s in speed]
    assert abs(speed[0].mean() - speed[1].mean()) <= 0.1 * speed[0].mean()
    if forward == "accelerating":
        assert np.median(gains[0]) > 0 > np.median(gains[1])
        # Rare breaks, many small gains: the skew turns with time.
        assert np.mean(gains[0] > 0) > 0.85 and np.mean(gains[1] < 0) > 0.85


def test_every_motion_draws_equally_many_numbers() -> None:
    """Else the scene's other draws, and so single frames, would depend on the motion."""
    left = set()
    for motion in ALL_MOTIONS:
        rng = np.random.default_rng(0)
        moving_shapes._path(motion, np.arange(5.0), SceneSettings(), rng)
        left.add(float(rng.random()))
    assert len(left) == 1


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
