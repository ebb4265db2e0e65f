"""The pictures of a training run, and whether it makes any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pydantic import Field
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.callbacks.online_knn import evaluating
from ssl_video.callbacks.pictures import Pictures
from ssl_video.cli.stand_in import attach_stand_in
from ssl_video.cli.strips import Strip, answers_of, draw, first_videos, joined, rows_of, watch
from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.loggers.folder import PictureFolder
from ssl_video.methods.base import SSLMethod
from ssl_video.report.activations import default_layers, top_activations
from ssl_video.report.contents import Measured, Predictions
from ssl_video.report.feature_map import map_features
from ssl_video.report.retrieval_sheet import SHOWN_NEIGHBOURS, make_sheet
from ssl_video.report.stills import as_pixels, feature_plane, neighbour_sheet, three_frames, unit_sheet
from ssl_video.utils.config import build
from ssl_video.utils.distributed import alone, is_divided
from ssl_video.utils.errors import InputError
from ssl_video.utils.pictures import ClipTable, Picture, Still

SEEN_VIDEOS = 4
UNIT_VIDEOS = 64


class PictureSettings:
    """Types of the node ``pictures``."""

    show: bool | Literal["auto"]
    every_epochs: Annotated[float, Field(gt=0)]
    videos: Annotated[int, Field(ge=8)]
    queries: Annotated[int, Field(ge=1, le=20)]


def build_pictures(
    config: DictConfig,
    run_dir: Path,
    datamodule: VideoDataModule,
    *,
    make_method: Callable[[], SSLMethod[Any]],
) -> list[Pictures]:
    """The callback that makes the pictures ``pictures=`` asks for; none where no logger shows them.

    Args:
        config: of the job.
        run_dir: where the CSV logger's pictures go.
        datamodule: the data.
        make_method: the method once more, for looking at what enters its networks.
    """
    asked = config.pictures
    shows = any(kind in (config.logger or {}) for kind in ("wandb", "tensorboard"))
    if not (shows if asked.show == "auto" else asked.show):
        return []
    keeps_files = "csv" in (config.logger or {}) or not shows
    return [
        Pictures(
            at_start=[SeenClips(datamodule, make_method=make_method, seed=config.seed)],
            regularly=[
                FeaturePictures(
                    datamodule,
                    transform=build(config.input_transform),
                    videos=asked.videos,
                    queries=asked.queries,
                )
            ],
            every_epochs=asked.every_epochs,
            others=[PictureFolder(run_dir / "pictures")] if keeps_files else [],
        )
    ]


class SeenClips:
    """Every clip of some videos as it enters a network of the method, with what its frames are.

    Another method of the same kind is asked, in this process alone and on the CPU: what enters its networks does not
    depend on weights, and the one that trains is left in peace.
    """

    def __init__(self, datamodule: VideoDataModule, *, make_method: Callable[[], SSLMethod[Any]], seed: int) -> None:
        self.datamodule = datamodule
        self.make_method = make_method
        self.seed = seed

    def __call__(self, method: pl.LightningModule, batch: Any, step: int) -> Mapping[str, Picture]:
        """``clips``: a table of the clips of the batch's first videos."""
        data = self.datamodule
        with alone():
            other = self.make_method()
            attach_stand_in(other, total_steps=2, step=0, batches_per_epoch=1)
            # One video is not enough for a batch norm over embeddings.
            some = first_videos(batch, SEEN_VIDEOS).to("cpu")
            strips = watch(other, some, seed=self.seed)
            answers = answers_of(other, some, seed=self.seed)
        paths, rows = data.manifest.column("path"), rows_of(some)
        titles = [str(paths[row]) for row in rows]
        still = Still(np.asarray(draw(strips, titles=titles, answers=answers)), "what enters the networks")
        columns = ("video", "label", "network", "frames", "clip", *(("answer",) if answers else ()))
        table: list[tuple[Any, ...]] = []
        for place in sorted({strip.video for strip in strips}, key=lambda video: (video is None, video)):
            for strip in joined([one for one in strips if one.video == place]):
                named = ("clips that mix videos", "") if place is None else (titles[place], self._label(rows[place]))
                own = () if not answers else ("" if place is None else str(answers[place]),)
                table.append((*named, strip.network, _numbers(strip), _shown(strip), *own))
        return {"clips": ClipTable(columns, table, still)}

    def _label(self, row: int) -> str:
        number = int(self.datamodule.labels[row])
        return self.datamodule.class_names[number] if number >= 0 else ""


def _numbers(strip: Strip) -> str:
    return "mixed" if strip.frames[0] < 0 else " ".join(map(str, strip.frames))


def _shown(strip: Strip) -> NDArray[np.uint8]:
    return (strip.images * 255).astype(np.uint8)


@dataclass(frozen=True)
class _Side:
    """Videos looked at: features ``[N, D]``, rows ``[N]``, and three frames of each."""

    features: NDArray[np.float32]
    rows: NDArray[np.int64]
    thumbnails: list[NDArray[np.uint8]]


class FeaturePictures:
    """What the backbone finds alike: neighbours, the plane of features, and the clips that excite its units.

    Args:
        datamodule: asked videos are of its test part, of val where there is none, else of train.
        transform: the backbone's input transform.
        videos: most of them; as many again of train are searched for neighbours.
        queries: on the sheet.
    """

    def __init__(self, datamodule: VideoDataModule, *, transform: Any, videos: int, queries: int) -> None:
        own = datamodule.sampler
        self.data = datamodule
        self.transform = transform
        self.queries = queries
        self.sampler = UniformClips(num_views=1, num_frames=own.num_frames, frame_stride=own.frame_stride)
        held_out = next((part for part in ("test", "val") if len(datamodule.readable_rows(part))), None)
        self.split = held_out or "train"
        rng = np.random.default_rng(0)
        # Of one order of train, so that without a held-out part those asked and those searched are others.
        train = rng.permutation(datamodule.readable_rows("train"))
        asked = rng.permutation(datamodule.readable_rows(self.split)) if held_out else train[len(train) // 2 :]
        searched = train if held_out else train[: len(train) // 2]
        self.asked, self.searched = np.sort(asked[:videos]), np.sort(searched[:videos])

    def __call__(self, method: pl.LightningModule, batch: Any, step: int) -> Mapping[str, Picture]:
        """``neighbours``, ``feature_map`` and ``units``.

        Raises:
            InputError: the weights are spread over processes, or there are too few videos.
        """
        if is_divided(method):
            raise InputError("under strategy=fsdp no process has the whole network; pictures.show=false leaves it out.")
        backbone: Any = method.backbone
        with evaluating(backbone):
            asked, searched = self._look(backbone, self.asked), self._look(backbone, self.searched)
            if len(asked.rows) < 3 or len(searched.rows) < SHOWN_NEIGHBOURS:
                raise InputError(f"{self.data.name} has too few videos for neighbours.")
            units = self._units(backbone, asked.rows[:UNIT_VIDEOS])
        return {"neighbours": self._neighbours(asked, searched), "feature_map": self._plane(asked, step), **units}

    def _loader(self, rows: NDArray[np.int64]) -> Iterable[ClipBatch]:
        loader: Any = self.data.labelled_loader(rows, sampler=self.sampler, transform=self.transform, batch_size=8)
        return (batch for batch in loader if len(batch))

    def _look(self, backbone: Backbone, rows: NDArray[np.int64]) -> _Side:
        weight = next(backbone.parameters())
        features, found = [], list[int]()
        thumbnails: list[NDArray[np.uint8]] = []
        for batch in self._loader(rows):
            clips = batch.clips[:, 0]
            features.append(backbone(clips.to(weight.device, weight.dtype)).float().cpu())
            found += batch.rows.tolist()
            thumbnails += [three_frames(as_pixels(clip)) for clip in clips]
        stacked = torch.cat(features) if features else torch.empty(0, backbone.feature_dim)
        return _Side(stacked.numpy(), np.array(found, dtype=np.int64), thumbnails)

    def _neighbours(self, asked: _Side, searched: _Side) -> Still:
        near = np.argsort(-_unit(asked.features) @ _unit(searched.features).T, axis=1, kind="stable")
        paths, labels = self._paths(searched.rows), self._labels(searched.rows)
        chosen = near[:, :SHOWN_NEIGHBOURS]
        predictions = Predictions(
            paths=self._paths(asked.rows),
            labels=self._labels(asked.rows),
            neighbours={"retrieval": [[paths[place] for place in row] for row in chosen]},
            neighbour_labels={"retrieval": [[labels[place] for place in row] for row in chosen]},
        )
        sheet = make_sheet(Measured("", 0, {}, predictions, None, 0), queries=self.queries)
        assert sheet is not None
        thumbnails = {
            path: picture
            for side in (asked, searched)
            for path, picture in zip(self._paths(side.rows), side.thumbnails, strict=True)
        }
        told = f"{sheet.hits} of {sheet.total} {self.split} videos have a nearest train video of their class"
        return Still(neighbour_sheet(sheet, thumbnails), told if sheet.total else "nearest train videos")

    def _plane(self, asked: _Side, step: int) -> Still:
        found = map_features(asked.features)
        if found is None:
            raise InputError("the features of too few videos are finite for a map.")
        told = f"features of {len(found.rows)} {self.split} videos after {step} steps"
        return Still(feature_plane(found, self._labels(asked.rows), title=told), told)

    def _units(self, backbone: Backbone, rows: NDArray[np.int64]) -> dict[str, Picture]:
        device, dtype = (weight := next(backbone.parameters())).device, weight.dtype

        def load(wanted: Sequence[int] | None) -> Iterator[ClipBatch]:
            for batch in self._loader(rows if wanted is None else np.array(wanted, dtype=np.int64)):
                yield _moved(batch, device, dtype)

        clip: Tensor = next(load(rows[:1].tolist())).clips[:, 0]
        found = top_activations(backbone, load, default_layers(backbone, clip))
        labels = dict(zip(rows.tolist(), self._labels(rows), strict=True))
        if not any(found.values()):
            return {}
        told = f"the clips of {len(rows)} {self.split} videos that excite a unit most, and the part that does"
        return {"units": Still(unit_sheet(found, labels), told)}

    def _paths(self, rows: NDArray[np.int64]) -> list[str]:
        # Segments of one file are told apart.
        paths, names = self.data.manifest.column("path"), self.data.manifest.column("segment_id")
        return [f"{paths[row]} {names[row]}" for row in rows]

    def _labels(self, rows: NDArray[np.int64]) -> list[str | None]:
        numbers = self.data.labels[rows].tolist()
        return [self.data.class_names[number] if number >= 0 else None for number in numbers]


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def _moved(batch: ClipBatch, device: torch.device, dtype: torch.dtype) -> ClipBatch:
    return replace(batch.to(device), clips=batch.clips.to(device, dtype))
