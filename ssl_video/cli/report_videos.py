"""What a page needs of a run's videos: thumbnails, and the clips that fire the units of its network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, build_backbone, build_datamodule, share_cores
from ssl_video.cli.report_inputs import run_folder_of
from ssl_video.cli.resume import overrides_by_key
from ssl_video.cli.weights import FROM_CHECKPOINT, complete_overrides, load_state
from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.manifest import Segment
from ssl_video.data.readers.base import Cut, FramePart
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.hub.weights import Weights, read_weights
from ssl_video.report.activations import ActiveClip, Unit, default_layers, top_activations
from ssl_video.report.contents import Run
from ssl_video.report.page import Activations, FiringClip, Layer
from ssl_video.report.pictures import animated_webp, shown_size, with_box
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.errors import InputError, UnreadableVideo
from ssl_video.utils.progress import with_progress
from ssl_video.utils.run import last_checkpoint

NO_LAYERS = "none"
# What of an evaluation's overrides decides of its videos and its network.
_KEPT = re.compile(
    r"[+~]{0,2}(dataset|reader|backbone|input_transform|num_frames|frame_stride|seed|cache_dir|trusted_packages)[.=]"
)
# A thumbnail shows so many frames of the middle of its video, at their own speed.
THUMBNAIL_FRAMES = 12
THUMBNAIL_SECONDS = 3.0
THUMBNAIL_SIDE = 80
UNIT_SIDE = 132
CLIPS_PER_VIDEO = 2


def split_overrides(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """What ``checkpoint=`` names, if it is given, and the overrides that say how videos and network are built."""
    checkpoint = overrides_by_key(list(overrides)).get("checkpoint")
    own = [text for text in overrides if _KEPT.match(text) and not text.endswith(f"={FROM_CHECKPOINT}")]
    return checkpoint, own


class RunVideos:
    """The videos of one run, found as ``evaluate.py`` finds them; what is not there is noted, never a fault.

    Args:
        folder: of a training run or of an evaluation.
        checkpoint: of ``evaluate.py``, in place of the run that the folder is or belongs to.
        overrides: of ``evaluate.py``; where they lead to other videos than those measured, the run's own are tried.
        wanted: whether videos are to be read at all.

    Attributes:
        notes: what could not be shown and why, in sentences.
    """

    def __init__(self, folder: Path, *, checkpoint: str | None, overrides: Sequence[str], wanted: bool) -> None:
        self.overrides = list(overrides)
        self.wanted = wanted
        self.notes: list[str] = []
        run = run_folder_of(folder)
        self._checkpoint = checkpoint or ("random" if run is None or last_checkpoint(run) is None else str(run))
        self._pictures: dict[tuple[str, str], bytes | None] = {}
        self._data: dict[str, VideoDataModule | None] = {}

    # --- thumbnails ---------------------------------------------------------------------------------------------------

    def pictures(self, dataset: str, manifest_hash: str, paths: Sequence[str]) -> dict[str, bytes]:
        """Animated WebP of those videos that can be read.

        Args:
            dataset: name of the data set that was measured.
            manifest_hash: of its manifest; videos of another one are not shown for it.
            paths: relative to its root.
        """
        data = self._measured_data(dataset, manifest_hash)
        if data is None:
            return {}
        missing = [path for path in paths if (manifest_hash, path) not in self._pictures]
        rows = _rows_by_path(data, missing)
        for path in with_progress(missing, total=len(missing), title="thumbnails", unit="video"):
            self._pictures[manifest_hash, path] = _thumbnail(data, rows.get(path, []))
        found = {path: self._pictures[manifest_hash, path] for path in paths}
        return {path: webp for path, webp in found.items() if webp is not None}

    def _measured_data(self, dataset: str, manifest_hash: str) -> VideoDataModule | None:
        """The data set with this hash, if the run's configuration or the overrides lead to it."""
        if not self.wanted:
            return None
        if manifest_hash not in self._data:
            found, reasons = None, []
            for overrides in self._ways_to_data(dataset):
                try:
                    data = self._datamodule(self._config(overrides))
                    if data.manifest.content_hash() == manifest_hash:
                        found = data
                        break
                    reasons.append(f"{data.name} is another data set now than the one that was measured")
                except (InputError, OSError) as fault:
                    reasons.append(str(fault))
            if found is None:
                self.notes.append(
                    f"no thumbnails: {'; '.join(dict.fromkeys(reasons))}. Say where the videos are: "
                    "dataset=NAME dataset.root=DIR."
                )
            self._data[manifest_hash] = found
        return self._data[manifest_hash]

    def _ways_to_data(self, dataset: str) -> list[list[str]]:
        """Overrides that may lead to the videos: those given, then what the checkpoint or the name brings."""
        given = [self.overrides] if self.overrides else []
        if self._checkpoint != "random":
            return [*given, []]
        return given or [[f"dataset={dataset}"]]

    def _config(self, overrides: Sequence[str]) -> DictConfig:
        quoted = self._checkpoint.replace("'", "\\'")
        words = complete_overrides([f"checkpoint='{quoted}'", *overrides])
        return compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)

    def _datamodule(self, config: DictConfig) -> VideoDataModule:
        share_cores(config)
        sampler = UniformClips(
            num_views=CLIPS_PER_VIDEO, num_frames=config.num_frames, frame_stride=config.frame_stride
        )
        return build_datamodule(config, sampler=sampler, transform=build(config.input_transform))

    # --- units --------------------------------------------------------------------------------------------------------

    def activations(self, run: Run, *, layers: str, num_videos: int) -> Activations | None:
        """The clips that fire units of the run's network most; None, with a note, where there is no network or video.

        Args:
            run: its contents.
            layers: names joined by commas, or nothing for the default.
            num_videos: most videos to look at.

        Raises:
            InputError: a layer that the network does not have.
        """
        if not self.wanted:
            return None
        if self._checkpoint == "random":
            self.notes.append("no units: no checkpoint lies beside these results.")
            return None
        try:
            config = self._config(self.overrides)
            weights = read_weights(self._checkpoint)
            data = self._datamodule(config)
            backbone = build_backbone(config)
            load_state(backbone, weights, source=f"checkpoint={self._checkpoint}")
        except (InputError, OSError) as fault:
            self.notes.append(f"no units: {fault}")
            return None
        self._note_other_checkpoint(run, weights)
        split = next((part for part in ("test", "val", "train") if len(data.readable_rows(part))), None)
        if split is None:
            self.notes.append(f"no units: {data.name} has no video that can be read.")
            return None
        every = data.readable_rows(split)
        rows = np.sort(np.random.default_rng(0).permutation(every)[:num_videos])
        return _find_activations(backbone.eval(), data, rows, layers=layers, split=split, notes=self.notes)

    def _note_other_checkpoint(self, run: Run, weights: Weights) -> None:
        measured = {str(one.report.get("checkpoint")) for one in run.evaluations}
        if measured and weights.label not in measured:
            self.notes.append(
                "the run's last checkpoint is another than the one that was measured (the training has gone on since); "
                "the units are those of the last one."
            )


def _rows_by_path(data: VideoDataModule, paths: Iterable[str]) -> dict[str, list[int]]:
    wanted, rows = set(paths), dict[str, list[int]]()
    for row, path in enumerate(data.manifest.column("path")):
        if path in wanted:
            rows.setdefault(path, []).append(row)
    return rows


def _thumbnail(data: VideoDataModule, rows: Sequence[int]) -> bytes | None:
    """The middle of a file, or, where it has several segments, of all they span; None if it cannot be read."""
    if not rows:
        return None
    segments = [data.manifest.segment(row) for row in rows]
    indices, milliseconds = _thumbnail_frames(segments)
    if not len(indices):
        return None
    try:
        size = shown_size(segments[0].height, segments[0].width, short_side=THUMBNAIL_SIDE)
        cut = Cut(indices, FramePart(size=size))
        [frames] = data.decoder.decode(data.manifest.file(rows[0]), [cut])
    except (UnreadableVideo, InputError, OSError):
        return None
    return animated_webp(frames, milliseconds=milliseconds)


def _thumbnail_frames(segments: Sequence[Segment]) -> tuple[np.ndarray, int]:
    """Frame numbers in the file, and how long each is shown."""
    first = min(segment.first_frame for segment in segments)
    last = max(segment.first_frame + segment.num_frames for segment in segments)
    fps = segments[0].fps or 25.0
    span = min(last - first, max(1, round(THUMBNAIL_SECONDS * fps)))
    start = first + (last - first - span) // 2
    number = min(THUMBNAIL_FRAMES, span)
    indices = start + np.arange(number) * span // max(1, number)
    return indices, max(40, round(1000 * span / fps / max(1, number)))


def _find_activations(
    backbone: Backbone, data: VideoDataModule, rows: np.ndarray, *, layers: str, split: str, notes: list[str]
) -> Activations | None:
    def load(wanted: Sequence[int] | None) -> Iterable[ClipBatch]:
        chosen = rows if wanted is None else np.array(wanted, dtype=np.int64)
        loader = data.labelled_loader(chosen, sampler=data.sampler, transform=data.transform, batch_size=4)
        return with_progress(loader, total=len(loader), title="units", unit="batch")

    # A black video tells the shape of the clips.
    black = torch.zeros(CLIPS_PER_VIDEO, data.sampler.num_frames, 128, 171, 3, dtype=torch.uint8)
    clip = data.transform(black)[:1]
    names = layers.split(",") if layers else default_layers(backbone, clip)
    found = top_activations(backbone, load, names)
    if not found:
        notes.append("no units: none of the videos can be read.")
        return None
    paths, labels = data.manifest.column("path"), data.labels

    def shown(clip: ActiveClip) -> FiringClip:
        frames = with_box(_as_pixels(clip.clip), clip.box, short_side=UNIT_SIDE)
        label = int(labels[clip.row])
        return FiringClip(
            picture=animated_webp(frames, milliseconds=150),
            path=str(paths[clip.row]),
            label=data.class_names[label] if label >= 0 else None,
            value=clip.value,
            box=clip.box,
        )

    frames, height, width = clip.shape[2:]
    return Activations(
        videos=len(rows),
        split=split,
        clip_size=(frames, height, width),
        layers=[Layer(name, [(unit, _shown_clips(unit, shown)) for unit in units]) for name, units in found.items()],
    )


def _shown_clips(unit: Unit, shown: Callable[[ActiveClip], FiringClip]) -> list[FiringClip]:
    return [shown(clip) for clip in unit.clips]


def _as_pixels(clip: Tensor) -> np.ndarray:
    """A normalised clip ``[C, T, H, W]`` as uint8 ``[T, H, W, 3]``, its own range stretched to what can be shown."""
    images = clip[:3].permute(1, 2, 3, 0)
    low, high = images.min(), images.max()
    pixels: np.ndarray = ((images - low) / (high - low).clamp_min(1e-6) * 255).to(torch.uint8).numpy()
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)
