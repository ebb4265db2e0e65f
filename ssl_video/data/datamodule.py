"""The one DataModule that all methods share: a manifest, its splits, and loaders whose order survives a resume."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ssl_video.data import position
from ssl_video.data.batch import ClipBatch, Sample, collate
from ssl_video.data.dataset import ClipSampler, ClipTransform, VideoDataset, View, uses_motion
from ssl_video.data.decoding.decoder import Decoder
from ssl_video.data.decoding.quarantine import (
    keep_in_quarantine,
    quarantine_file,
    refuse_quarantined,
    rows_in_quarantine,
)
from ssl_video.data.label_split import LabelSplit
from ssl_video.data.manifest import Manifest
from ssl_video.data.motion import MotionTables, motion_folder
from ssl_video.data.order import BatchOrder
from ssl_video.data.repeats import EachRepeat, RepeatedOrder, RepeatedVideos, UnrolledLoader
from ssl_video.data.semi_batch import SemiBatch, SemiCollate
from ssl_video.data.semi_dataset import SemiDataset
from ssl_video.data.semi_order import SemiOrder
from ssl_video.data.semi_part import SemiPart
from ssl_video.data.splits import class_indices, split_rows
from ssl_video.data.start_checks import (
    count_without_motion,
    refuse_large_batch,
    refuse_unreadable,
    tell_missing_motion,
)
from ssl_video.data.views_dataset import ViewsDataset, collate_views
from ssl_video.utils.distributed import gather_objects, rank, world_size
from ssl_video.utils.errors import InputError
from ssl_video.utils.signals import ignore_endings

Name = TypeVar("Name", bound=Hashable)
AugmentOn = Literal["worker", "device"]


class ManifestSource(Protocol):
    """Makes a data set's manifest; see ``ssl_video.data.sources``."""

    def __call__(self, *, root: Path | None, labels: Path | None, cache_dir: Path) -> Manifest:
        """The manifest, indexed on first use."""
        ...


class VideoDataModule(pl.LightningDataModule):
    """Videos of one data set as batches of clips.

    Args:
        name: the data set's name, as it stands in results.
        source: makes the manifest.
        root: the folder with the videos.
        labels: a CSV with labels, splits and groups.
        label: label column; None takes the manifest's first.
        test_fraction: share of groups (or videos) that a drawn test part takes, where the data set has labels but no
            split.
        split_seed: seed of that draw.
        test_groups: names the groups of the test part instead.
        val_fraction: share of the training videos on which a protocol chooses what it has to choose.
        num_workers: decoding processes per device; 0 decodes in the main process.
        clips_per_open: training samples made of each opening of a video, spread over as many batches; see
            ``data/repeats.py``.
        max_unreadable_share: refuse to start when a larger share of the videos cannot be read.
        quarantine: leave out of training what earlier runs could not read, and keep what this one cannot.
        sampler: chooses the frames of a training sample.
        transform: makes its clips.
        decoder: reads frames of video files.
        batch_size: videos per device.
        seed: the run's seed.
        cache_dir: folder for manifests and made data.
        semi: which training videos keep their label, and how the others are seen; batches are then ``SemiBatch``.
        augment_on: where training clips are finished: ``worker``, or ``device``, which gets them as uint8 and does the
            work of a whole batch at once.
    """

    def __init__(
        self,
        *,
        name: str,
        source: ManifestSource,
        root: str | None = None,
        labels: str | None = None,
        label: str | None = None,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        test_groups: Sequence[str | int] | None = None,
        val_fraction: float = 0.1,
        num_workers: int = 2,
        clips_per_open: int = 1,
        max_unreadable_share: float = 0.1,
        quarantine: bool = True,
        sampler: ClipSampler,
        transform: ClipTransform,
        decoder: Decoder,
        batch_size: int,
        seed: int,
        cache_dir: Path,
        semi: SemiPart | None = None,
        augment_on: AugmentOn = "worker",
    ) -> None:
        super().__init__()
        if clips_per_open < 1:
            raise InputError(f"dataset.clips_per_open={clips_per_open} must be at least 1.")
        self.name = name
        self.source = source
        self.root = None if root is None else Path(root)
        self.labels_file = None if labels is None else Path(labels)
        self.label = label
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.test_groups = test_groups
        self.val_fraction = val_fraction
        self.num_workers = num_workers
        self.clips_per_open = clips_per_open
        self.max_unreadable_share = max_unreadable_share
        self.quarantine = quarantine
        self.sampler = sampler
        self.transform = transform
        self.decoder = decoder
        self.batch_size = batch_size
        self.seed = seed
        self.cache_dir = cache_dir
        self.semi = semi
        self.augment_on: AugmentOn = augment_on
        self.label_split: LabelSplit | None = None
        self.class_names: list[str] = []
        self.too_short: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.quarantined: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._manifest: Manifest | None = None
        self._motion: MotionTables | None = None
        self._first_batch = 0  # of the order, where this process begins
        self._processed_before = 0  # batches, by the trainer's count
        self._train_rows: NDArray[np.int64] | None = None

    @property
    def manifest(self) -> Manifest:
        """The data set's table; made on first use."""
        self.setup()
        assert self._manifest is not None
        return self._manifest

    def setup(self, stage: str | None = None) -> None:
        """Indexes the data (once) and splits it.

        Raises:
            InputError: no videos, too many that cannot be read, an unknown label or group.
        """
        if self._manifest is not None:
            return
        manifest = self.source(root=self.root, labels=self.labels_file, cache_dir=self.cache_dir)
        refuse_unreadable(manifest, name=str(self.name), max_share=self.max_unreadable_share)
        self.label = self.label or next(iter(manifest.label_columns), None)
        self.labels, self.class_names = class_indices(manifest, self.label)
        self.videos = manifest.video_numbers()
        self.splits = split_rows(
            manifest,
            label=self.label,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
            test_groups=self.test_groups,
        )
        if self.semi is not None:
            self.label_split = self.semi.split(
                manifest,
                name=str(self.name),
                rows=self.splits["train"],
                labels=self.labels,
                class_names=self.class_names,
            )
        self._manifest = manifest

    def draw_test_part(self) -> None:
        """Draws a test part, as where there are labels, from videos that have none and were all for training."""
        self.splits = split_rows(
            self.manifest,
            label=self.label,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
            test_groups=self.test_groups,
            draw_without_labels=True,
        )

    def readable_rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split whose file could be read when it was indexed."""
        is_usable, rows = self.manifest.is_usable(), self.splits[split]
        return rows[is_usable[rows]]

    def check_enough(self, num_processes: int) -> None:
        """Refuses a global batch that is larger than the training part.

        Raises:
            InputError: names both and the way out.
        """
        rows = self.train_rows()
        if self.semi is not None:
            assert self.label_split is not None
            self.semi.refuse_too_few(
                self._pools(),
                batch_size=self.batch_size,
                num_processes=num_processes,
                name=str(self.name),
                family=self.label_split.family,
            )
            return
        refuse_large_batch(
            len(rows),
            batch_size=self.batch_size,
            num_processes=num_processes,
            name=str(self.name),
            too_short=len(self.too_short) if self.sampler.end_policy == "error" else 0,
            min_frames=self.sampler.min_frames,
        )

    @property
    def motion(self) -> MotionTables:
        """The motion tables there were when they were first asked for."""
        if self._motion is None:
            manifest = self.manifest.parquet_file
            self._motion = MotionTables(None if manifest is None else motion_folder(manifest))
        return self._motion

    def check_motion(self) -> str | None:
        """Says how many training videos have no motion table where the sampler chooses by motion, None where all have.

        Raises:
            InputError: some have none, and the sampler's ``missing_motion`` is ``error``.
        """
        if not uses_motion(self.sampler):
            return None
        words = f"dataset={self.name}"
        words += "" if self.root is None else f" dataset.root={self.root}"
        words += "" if self.labels_file is None else f" dataset.labels={self.labels_file}"
        rows = self.train_rows()
        return tell_missing_motion(
            count_without_motion(self.manifest, rows, self.motion),
            of=len(rows),
            name=str(self.name),
            words=words,
            refuse=getattr(self.sampler, "missing_motion", "uniform") == "error",
        )

    def train_rows(self) -> NDArray[np.int64]:
        """The rows of this run: readable, not in quarantine, and long enough where the sampler's policy is ``error``.

        Raises:
            InputError: too many are in quarantine.
        """
        if self._train_rows is None:
            readable = self.readable_rows("train")
            if self.quarantine:
                self.quarantined = rows_in_quarantine(self.manifest, readable, cache_dir=self.cache_dir)
                refuse_quarantined(
                    self.quarantined, readable, cache_dir=self.cache_dir, max_share=self.max_unreadable_share
                )
                readable = np.setdiff1d(readable, self.quarantined, assume_unique=True)
            is_short = self.manifest.frame_counts()[readable] < self.sampler.min_frames
            self.too_short = readable[is_short]
            self._train_rows = readable[~is_short] if self.sampler.end_policy == "error" else readable
        return self._train_rows

    def keep_in_quarantine(self, row: int, reason: str) -> None:
        """Leaves a row's video out of the runs to come."""
        keep_in_quarantine(quarantine_file(self.cache_dir), self.manifest, row, reason)

    def use_rows(self, rows: NDArray[np.int64]) -> None:
        """Takes the list of usable rows from a run that is resumed, whatever the quarantine says now."""
        self._train_rows = rows
        self.quarantined = np.empty(0, dtype=np.int64)

    def batches_per_epoch(self, num_processes: int) -> int:
        """Batches of one epoch on each of so many devices: every video is opened once."""
        return self.clips_per_open * self._opening_order(rank=0, world_size=num_processes).batches_per_epoch

    def batches(self, num_processes: int) -> dict[str, int]:
        """See `position.batches`."""
        return position.batches(
            processes=num_processes,
            batch_size=self.batch_size,
            batches_per_epoch=self.batches_per_epoch(num_processes),
        )

    def frames_per_batch(self) -> int:
        """Frames that are decoded for one training batch on a device."""
        frames = self.sampler.num_views * self.sampler.num_frames
        if self.semi is None:
            return self.batch_size * frames
        labeled, unlabeled = self.semi.batch_sizes(self.batch_size)
        samplers = [view.sampler for view in self.semi.views.values()]
        return labeled * frames + unlabeled * sum(own.num_views * own.num_frames for own in samplers)

    def _pools(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labelled and unlabelled rows of this run."""
        usable = self.train_rows()
        assert self.semi is not None and self.label_split is not None
        return self.semi.pools(self.label_split, usable)

    def _opening_order(
        self, *, rank: int, world_size: int, num_batches: int | None = None, first_batch: int = 0
    ) -> BatchOrder | SemiOrder:
        common: dict[str, Any] = {
            "num_batches": num_batches,
            "first_batch": first_batch,
            "seed": self.seed,
            "rank": rank,
            "world_size": world_size,
        }
        if self.semi is None:
            return BatchOrder(self.train_rows(), batch_size=self.batch_size, **common)
        labeled, unlabeled = self.semi.batch_sizes(self.batch_size)
        return SemiOrder(
            *self._pools(),
            batch_size=labeled,
            unlabeled_batch_size=unlabeled,
            epoch_by=self.semi.epoch_by,
            **common,
        )

    def train_dataloader(self) -> UnrolledLoader[Any]:
        """Shuffled batches ``[B, V, C, T, H, W]`` of all epochs, going on where the checkpoint stopped."""
        assert self.trainer is not None
        self._refuse_other_rows()
        return self.training_loader(self.trainer.max_steps * self.trainer.accumulate_grad_batches)

    def _refuse_other_rows(self) -> None:
        """Processes with different lists would train on each other's batches, and some would wait for ever."""
        digest = hashlib.sha256(self.train_rows().tobytes()).hexdigest()
        if len(set(gather_objects(digest))) > 1:
            raise InputError(
                f"The processes of this run have different lists of training videos of {self.name}: they see different "
                "quarantines (another run wrote to it meanwhile, or each machine has a cache_dir of its own). Start "
                "again, give one cache_dir to all, or set dataset.quarantine=false."
            )

    def training_loader(self, num_batches: int, *, first_batch: int | None = None) -> UnrolledLoader[Any]:
        """As ``train_dataloader``, for a run of so many batches on each device, from any of them on."""
        repeats = self.clips_per_open
        of_order = num_batches
        if first_batch is None:
            first_batch, of_order = self._first_batch, self._first_batch + num_batches - self._processed_before
        openings = self._opening_order(
            rank=rank(),
            world_size=world_size(),
            num_batches=-(-of_order // repeats),
            first_batch=first_batch // repeats,
        )
        order = RepeatedOrder(openings, clips_per_open=repeats, num_batches=of_order, first_batch=first_batch)
        if self.semi is None:
            videos = RepeatedVideos(self._training_dataset(self.train_rows()))
            loader = self._loader(videos, order, collate_fn=EachRepeat(collate))
        else:
            labeled, unlabeled = (self._training_dataset(rows) for rows in self._pools())
            unlabeled.labels = np.full_like(self.labels, -1)
            parts = SemiDataset(labeled, unlabeled, views=self.semi.views)
            loader = self._loader(parts, order, collate_fn=EachRepeat(SemiCollate(self.labels)))
        return UnrolledLoader(loader, num_batches=num_batches)

    def evaluation_views_loader(
        self, rows: NDArray[np.int64], views: Mapping[Name, View], *, batch_size: int
    ) -> DataLoader[dict[Name, ClipBatch]]:
        """Some rows in several views, each file opened once: batches by the views' names.

        Every row comes once, in this order; unreadable ones are reported, in each view. What a view shows of a video
        depends on neither the other views nor the other rows.

        Args:
            rows: of the manifest; several processes each give their own.
            views: by any name; the frames that all of them want are decoded in one pass where they want one size.
            batch_size: videos.
        """
        first = next(iter(views.values()))
        videos = self._dataset(rows, first.sampler, first.transform, unreadable="report")
        order = BatchOrder(rows, batch_size=batch_size, shuffle=False, drop_last=False)
        return self._loader(ViewsDataset(videos, views), order, collate_fn=collate_views)

    def labelled_loader(
        self,
        rows: NDArray[np.int64],
        *,
        sampler: ClipSampler,
        transform: ClipTransform,
        batch_size: int,
        num_batches: int | None = None,
        seed: int = 0,
    ) -> DataLoader[Sample]:
        """Some rows, in one process, for protocols that train.

        Args:
            rows: of the manifest.
            sampler: chooses the frames.
            transform: makes the clips.
            batch_size: videos.
            num_batches: whole batches, shuffled, epoch after epoch, an unreadable video replaced by another; None gives
                every row once, in this order, unreadable ones reported.
            seed: of the order and of what sampler and transform draw.
        """
        trains = num_batches is not None
        order = BatchOrder(
            rows, batch_size=batch_size, num_batches=num_batches, seed=seed, shuffle=trains, drop_last=trains
        )
        dataset = self._dataset(rows, sampler, transform, unreadable="replace" if trains else "report")
        dataset.seed = seed
        return self._loader(dataset, order)

    def _training_dataset(self, rows: NDArray[np.int64]) -> VideoDataset:
        dataset = self._dataset(rows, self.sampler, self.transform, unreadable="replace")
        dataset.finish = self.augment_on == "worker"
        return dataset

    def _dataset(
        self, rows: NDArray[np.int64], sampler: ClipSampler, transform: ClipTransform, *, unreadable: Any
    ) -> VideoDataset:
        return VideoDataset(
            self.manifest,
            rows=rows,
            labels=self.labels,
            videos=self.videos,
            sampler=sampler,
            transform=transform,
            decoder=self.decoder,
            seed=self.seed,
            unreadable=unreadable,
            motion=self.motion if uses_motion(sampler) else None,
        )

    def _loader(
        self,
        dataset: VideoDataset | RepeatedVideos | SemiDataset | ViewsDataset[Any],
        order: BatchOrder | RepeatedOrder,
        *,
        collate_fn: Callable[..., Any] = collate,
    ) -> DataLoader[Any]:
        # What Arrow keeps for later use, after all rows were looked at, every worker would hold too.
        pa.default_memory_pool().release_unused()
        return DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=self.num_workers,
            collate_fn=collate_fn,
            pin_memory=torch.cuda.is_available(),
            # Training is one iteration over all epochs: its workers end with it, which the trainer does not see to.
            persistent_workers=self.num_workers > 0 and not isinstance(order, RepeatedOrder),
            worker_init_fn=_prepare_training_worker if isinstance(order, RepeatedOrder) else _prepare_worker,
        )

    def transfer_batch_to_device(
        self, batch: ClipBatch | SemiBatch, device: torch.device, dataloader_idx: int
    ) -> ClipBatch | SemiBatch:
        """Moves the batch while the device computes."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: ClipBatch | SemiBatch, dataloader_idx: int) -> ClipBatch | SemiBatch:
        """Finishes clips that came unfinished, on the device that they are on."""
        return self.finished(batch)

    def finished(self, batch: ClipBatch | SemiBatch) -> ClipBatch | SemiBatch:
        """A training batch with clips as the method takes them, float32."""
        if isinstance(batch, ClipBatch):
            return batch.finished(self.transform.finish)
        assert self.semi is not None
        views = {name: view.transform.finish for name, view in self.semi.views.items()}
        return batch.finished(self.transform.finish, views)

    def state_dict(self) -> dict[str, Any]:
        """Batches consumed and usable rows: the position is counted by the trainer, never by sampler or workers."""
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        done: int = progress.current.processed
        state = {
            "consumed_batches": self._first_batch + done - self._processed_before,
            "processed_batches": done,
            "batches": self.batches(world_size()),
            "rows": torch.from_numpy(self.train_rows()),
            **self._data_now(),
        }
        return state if self.semi is None else state | {"labeled_rows": torch.from_numpy(self._pools()[0])}

    def _data_now(self) -> dict[str, Any]:
        """What must be the same whenever the run goes on."""
        return {
            "manifest_hash": self.manifest.content_hash(),
            "motion": self.motion.fingerprint() if uses_motion(self.sampler) else "",
            "clips_per_open": self.clips_per_open,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the batch after the last one that was processed, on the run's own list of videos.

        Raises:
            InputError: the data set has changed, so that its rows are other videos now.
        """
        position.refuse_other_data(state_dict, self._data_now(), name=str(self.name))
        self.use_rows(state_dict["rows"].numpy())
        consumed: int = state_dict["consumed_batches"]
        self._processed_before = state_dict.get("processed_batches", consumed)
        self._first_batch = position.same_video(
            consumed, began=state_dict.get("batches"), now=self.batches(world_size())
        )
        if self.semi is not None and self._pools()[0].tolist() != state_dict["labeled_rows"].tolist():
            raise InputError(
                f"Other videos of {self.name} are labelled now than when the run began (label_fraction, label_seed or "
                "label_split_file has changed); leave these as they were, or start a new run."
            )


def _prepare_worker(worker: int) -> None:
    # Workers share the cores with the main process; a thread pool each would fight over them.
    torch.set_num_threads(1)
    # A terminal sends Ctrl-C to all processes; the main one ends its workers when it is done with the step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _prepare_training_worker(worker: int) -> None:
    _prepare_worker(worker)
    ignore_endings()
