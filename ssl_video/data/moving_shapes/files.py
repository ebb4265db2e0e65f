"""Writes the embedded data set: which video has which labels, its files, and the folder that appears when complete."""

import csv
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from ssl_video.data.moving_shapes.motions import ALL_MOTIONS, MOTIONS
from ssl_video.data.moving_shapes.rendering import render_video
from ssl_video.data.moving_shapes.scene import Bytes, SceneSettings
from ssl_video.data.moving_shapes.textures import APPEARANCES
from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import with_progress

GENERATOR_VERSION = 2  # to be raised when equal arguments give other videos


@dataclass(frozen=True)
class Row:
    """One line of labels.csv and where its files go, relative to the data set's root."""

    number: int
    motion: str
    appearance: str
    split: str

    @property
    def name(self) -> str:
        """The number as files are called by it."""
        return f"{self.number:05d}"

    @property
    def path(self) -> str:
        """The video."""
        return f"videos/{self.name}.mp4"


def plan(*, num_videos: int, motions: Sequence[str] = MOTIONS, test_fraction: float = 0.2, seed: int = 0) -> list[Row]:
    """Which video has which labels and split.

    Motion and appearance are crossed, and each pair has its share of the test split, so that the two labels are
    independent in either split (exactly where the counts divide). The order of the files is random.
    """
    rng = np.random.default_rng([seed, 2])
    pairs = len(motions) * len(APPEARANCES)
    place = rng.permutation(num_videos)
    rows = []
    for number, cell in enumerate(place.tolist()):
        motion, appearance = motions[cell % len(motions)], APPEARANCES[cell // len(motions) % len(APPEARANCES)]
        # Rounds of all pairs go to test at evenly spread places.
        # Where a round is incomplete its videos are split like the others of their round.
        turn = cell // pairs if num_videos * test_fraction >= pairs else cell  # too few to balance: by video
        test = math.floor((turn + 1) * test_fraction + 1e-9) > math.floor(turn * test_fraction + 1e-9)
        rows.append(Row(number, motion, appearance, "test" if test else "train"))
    return rows


def write_mp4(path: Path, frames: Bytes, *, fps: int = 25, crf: int = 18, keyframe_interval: int = 12) -> None:
    """Writes uint8 [T,H,W,3] as H.264 without B-frames.

    One thread and no macroblock tree, so that equal frames give equal files, with or without AVX-512.
    """
    with av.open(str(path), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = keyframe_interval
        stream.codec_context.max_b_frames = 0
        # With AVX-512, the macroblock tree of x264 takes eight macroblocks at a time, also past the end of a short row,
        # where the memory may hold anything: now and then equal frames would give another file.
        stream.options = {"crf": str(crf), "preset": "veryfast", "mbtree": "0"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_video(row: Row, *, root: Path, settings: SceneSettings, seed: int) -> None:
    """Writes one video and its annotations."""
    video = render_video(
        row.motion, row.appearance, settings=settings, video_seed=(seed, 3, row.number), bank_seed=seed
    )
    write_mp4(root / row.path, video.frames)
    np.savez_compressed(
        root / "annotations" / f"{row.name}.npz", masks=video.masks, boxes=video.boxes, keypoints=video.keypoints
    )


def _check(num_videos: int, motions: Sequence[str], test_fraction: float, settings: SceneSettings) -> None:
    unknown = sorted(set(motions) - set(ALL_MOTIONS))
    if unknown or len(set(motions)) != len(motions) or not motions:
        raise InputError(f"motions={list(motions)} must be distinct names out of {list(ALL_MOTIONS)}.")
    if num_videos < 1:
        raise InputError(f"num_videos={num_videos} must be at least 1.")
    if not 0.0 <= test_fraction < 1.0:
        raise InputError(f"test_fraction={test_fraction} must lie in [0, 1); 0 makes no test split.")
    if settings.size < 16 or settings.size % 2:
        raise InputError(f"size={settings.size} must be even and at least 16, as 4:2:0 video needs.")
    if settings.num_frames < 1:
        raise InputError(f"num_frames={settings.num_frames} must be at least 1; a video has one frame or more.")
    if settings.object_scale <= 0 or settings.speed <= 0:
        raise InputError(f"object_scale={settings.object_scale} and speed={settings.speed} must be above 0.")
    if settings.textures_per_appearance < 1:
        raise InputError(f"textures_per_appearance={settings.textures_per_appearance} must be at least 1.")


def make_moving_shapes(
    root: Path,
    *,
    settings: SceneSettings | None = None,
    num_videos: int = 600,
    motions: Sequence[str] = MOTIONS,
    test_fraction: float = 0.2,
    num_workers: int = 2,
    seed: int = 0,
) -> None:
    """Writes the data set to `root`: videos/*.mp4, annotations/*.npz and labels.csv.

    labels.csv has the columns path, motion, appearance, split and group (every video is its own group). An annotation
    file holds masks, boxes and keypoints as `RenderedVideo` describes them. The folder appears when it is complete;
    one that is there already is left alone. Equal arguments give equal frames; `num_workers` changes nothing.

    Args:
        root: The folder to make.
        settings: What the videos look like, and how hard they are; the defaults if None.
        num_videos: Videos in all; a multiple of 200 is balanced exactly at the defaults.
        motions: The motion classes, out of `ALL_MOTIONS`.
        test_fraction: Share of the videos whose split is test, drawn alike from each pair of labels.
        num_workers: Processes that draw and encode; above 1 they are spawned, so a script that calls this needs the
            usual `if __name__ == "__main__":`.
        seed: Seeds the textures, the videos and the split.

    Raises:
        InputError: An argument is out of range, or `root` exists and is no such data set.
    """
    settings = settings or SceneSettings()
    _check(num_videos, motions, test_fraction, settings)
    root = Path(root)
    if (root / "labels.csv").exists():
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(
            f"{root} holds other files, and moving_shapes makes videos of its own: name a folder that does not exist. "
            "For videos of your own add dataset=folder. Nothing was changed."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    rows = plan(num_videos=num_videos, motions=motions, test_fraction=test_fraction, seed=seed)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        _write_all(rows, building, settings=settings, seed=seed, num_workers=num_workers)
        _publish(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_all(rows: list[Row], root: Path, *, settings: SceneSettings, seed: int, num_workers: int) -> None:
    """Writes every file of the data set into `root`, labels.csv last."""
    (root / "videos").mkdir()
    (root / "annotations").mkdir()
    write = partial(_write_video, root=root, settings=settings, seed=seed)
    progress = partial(with_progress, total=len(rows), title="moving_shapes", unit="video")
    if num_workers > 1 and len(rows) > 8:
        # Spawned, not forked: the caller may hold threads (torch, a video reader), which a fork would break.
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for _ in progress(pool.map(write, rows, chunksize=4)):
                pass
    else:
        for _ in progress(map(write, rows)):
            pass
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "motion", "appearance", "split", "group"])
        table.writerows([row.path, row.motion, row.appearance, row.split, row.name] for row in rows)


def _publish(building: Path, root: Path) -> None:
    """Renames the finished folder to `root`; when another process was faster, its equal folder stays."""
    building.chmod(0o755)
    try:
        building.rename(root)
    except OSError:
        if not (root / "labels.csv").exists():
            raise
