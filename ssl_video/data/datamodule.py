"""The one DataModule that all methods share: a manifest, its splits, and loaders whose order survives a resume."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ssl_video.data.batch import ClipBatch, Sample, collate
from ssl_video.data.dataset import ClipSampler, ClipTransform, ReaderFactory, VideoDataset
from ssl_video.data.manifest import Manifest
from ssl_video.data.order import BatchOrder
from ssl_video.data.splits import class_indices, split_rows
from ssl_video.utils.distributed import rank, world_size
from ssl_video.utils.errors import InputError


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
        max_unreadable_share: refuse to start when a larger share of the videos cannot be read.
        sampler: chooses the frames of a training sample.
        transform: makes its clips.
        open_reader: opens a video file.
        batch_size: videos per device.
        seed: the run's seed.
        cache_dir: folder for manifests and made data.
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
        max_unreadable_share: float = 0.1,
        sampler: ClipSampler,
        transform: ClipTransform,
        open_reader: ReaderFactory,
        batch_size: int,
        seed: int,
        cache_dir: Path,
    ) -> None:
        super().__init__()
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
        self.max_unreadable_share = max_unreadable_share
        self.sampler = sampler
        self.transform = transform
        self.open_reader = open_reader
        self.batch_size = batch_size
        self.seed = seed
        self.cache_dir = cache_dir
        self.class_names: list[str] = []
        self.too_short: list[int] = []
        self._manifest: Manifest | None = None
        self._consumed_batches = 0
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
        self._refuse_unreadable(manifest)
        self.label = self.label or next(iter(manifest.label_columns), None)
        self.labels, self.class_names = class_indices(manifest, self.label)
        self.videos = np.unique(manifest.column("video_id"), return_inverse=True)[1].astype(np.int64)
        self.splits = split_rows(
            manifest,
            label=self.label,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
            test_groups=self.test_groups,
        )
        self._manifest = manifest

    def _refuse_unreadable(self, manifest: Manifest) -> None:
        status = manifest.column("status")
        bad = [row for row, value in enumerate(status) if value != "ok"]
        if len(bad) <= self.max_unreadable_share * len(status):
            return
        reasons = manifest.column("reason")
        shown = "\n".join(f"  {manifest.segment(row).path}: {status[row]} ({reasons[row]})" for row in bad[:10])
        more = f"\n  … and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise InputError(
            f"{len(bad)} of {len(status)} videos of {self.name} are missing or cannot be read, above "
            f"dataset.max_unreadable_share={self.max_unreadable_share}. Mend or remove them, or raise that share:\n"
            f"{shown}{more}"
        )

    def readable_rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split whose file could be read when it was indexed."""
        status = self.manifest.column("status")
        return np.array([row for row in self.splits[split] if status[row] == "ok"], dtype=np.int64)

    def check_enough(self, num_processes: int) -> None:
        """Refuses a global batch that is larger than the training part.

        Raises:
            InputError: names both and the way out.
        """
        rows = self.train_rows()
        if len(rows) >= self.batch_size * num_processes:
            return
        left_out = f" ({len(self.too_short)} are shorter than the {self.sampler.min_frames} frames that sampler needs)"
        if self.sampler.end_policy != "error":
            left_out = ""
        fitting = len(rows) // num_processes
        raise InputError(
            f"batch_size={self.batch_size} on {num_processes} device(s) is larger than the {len(rows)} usable training "
            f"videos of {self.name}{left_out if self.too_short else ''}. "
            + (f"Use batch_size={fitting} or less." if fitting else "Give longer videos, or shorter clips.")
        )

    def train_rows(self) -> NDArray[np.int64]:
        """The rows of this run: readable, and long enough where the sampler's end policy is ``error``."""
        if self._train_rows is None:
            readable = self.readable_rows("train")
            frames = {int(row): self.manifest.segment(int(row)).num_frames for row in readable}
            self.too_short = [row for row, number in frames.items() if number < self.sampler.min_frames]
            left_out = self.too_short if self.sampler.end_policy == "error" else []
            self._train_rows = np.setdiff1d(readable, np.array(left_out, dtype=np.int64))
        return self._train_rows

    def use_rows(self, rows: NDArray[np.int64]) -> None:
        """Takes the list of usable rows from a run that is resumed, whatever the quarantine says now."""
        self._train_rows = rows

    def batches_per_epoch(self, num_processes: int) -> int:
        """Batches of one epoch on each of so many devices."""
        return len(self.train_rows()) // (self.batch_size * num_processes)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled batches ``[B, V, C, T, H, W]`` of all epochs, going on where the checkpoint stopped."""
        assert self.trainer is not None
        return self.training_loader(self.trainer.max_steps * self.trainer.accumulate_grad_batches)

    def training_loader(self, num_batches: int) -> DataLoader[Sample]:
        """As ``train_dataloader``, for a run of so many batches on each device."""
        order = BatchOrder(
            self.train_rows(),
            batch_size=self.batch_size,
            num_batches=num_batches,
            first_batch=self._consumed_batches,
            seed=self.seed,
            rank=rank(),
            world_size=world_size(),
        )
        dataset = self._dataset(self.train_rows(), self.sampler, self.transform, unreadable="replace")
        return self._loader(dataset, order)

    def val_dataloader(self) -> DataLoader[Sample]:
        """The val split with the training sampler, in fixed order, nothing dropped."""
        return self.evaluation_loader("val", sampler=self.sampler, transform=self.transform)

    def test_dataloader(self) -> DataLoader[Sample]:
        """The test split with the training sampler, in fixed order, nothing dropped."""
        return self.evaluation_loader("test", sampler=self.sampler, transform=self.transform)

    def evaluation_loader(
        self, split: str, *, sampler: ClipSampler, transform: ClipTransform, batch_size: int | None = None
    ) -> DataLoader[Sample]:
        """All readable videos of a split, once each, in the manifest's order; unreadable ones are reported."""
        rows = self.readable_rows(split)
        order = BatchOrder(
            rows,
            batch_size=batch_size or self.batch_size,
            shuffle=False,
            drop_last=False,
            rank=rank(),
            world_size=world_size(),
        )
        return self._loader(self._dataset(rows, sampler, transform, unreadable="report"), order)

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
            open_reader=self.open_reader,
            seed=self.seed,
            unreadable=unreadable,
        )

    def _loader(self, dataset: VideoDataset, order: BatchOrder) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_prepare_worker,
        )

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Moves the batch while the device computes."""
        return batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Batches consumed and usable rows: the position is counted by the trainer, never by sampler or workers."""
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        done: int = progress.current.processed
        return {
            "consumed_batches": done,
            "rows": torch.from_numpy(self.train_rows()),
            "manifest_hash": self.manifest.content_hash(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the batch after the last one that was processed, on the run's own list of videos.

        Raises:
            InputError: the data set has changed, so that its rows are other videos now.
        """
        if state_dict["manifest_hash"] != self.manifest.content_hash():
            raise InputError(
                f"The videos of {self.name} (files, labels or splits) have changed since the run began; it can go on "
                "only with what it began with. Put them back, or start a new run."
            )
        self._consumed_batches = state_dict["consumed_batches"]
        self.use_rows(state_dict["rows"].numpy())


def _prepare_worker(worker: int) -> None:
    # Workers share the cores with the main process; a thread pool each would fight over them.
    torch.set_num_threads(1)
    # A terminal sends Ctrl-C to all processes; the main one ends its workers when it is done with the step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
