"""Our loader against others, and against itself with more workers, on the same frames of the same files.

The loader is the real one (data module, data set, sampler, reader, decoding child, DataLoader), made from a checked
configuration as ``train.py`` makes it. What it delivers is as it would be trained: on a GPU the clips leave it as
uint8 and the device finishes them; on a CPU the worker does.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from benchmark import videos
from benchmark.blocks import Block, Contender, interleaved, on_cores, rate, speedup
from benchmark.figures import Figure
from benchmark.peers import Blur, UsualLoader, Videos, VJEPA2Loader
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_datamodule
from ssl_video.data import prepare
from ssl_video.data.datamodule import AugmentOn, VideoDataModule
from ssl_video.data.index import index_folder
from ssl_video.data.order import BatchOrder
from ssl_video.data.prepared_folder import files_to_prepare
from ssl_video.data.repeats import RepeatedOrder, UnrolledLoader
from ssl_video.utils.config import build, compose_checked, group_options

SIZE = 112
NUM_VIEWS = 2
NUM_FRAMES = 16
BATCH_SIZE = 8
# Batches of a block: enough for a second or more of each loader.
STOCK_BATCHES = 3
PREPARED_BATCHES = 16
EPOCHS_AHEAD = 10_000
USUAL: dict[str, Blur] = {"usual, stock": "torchvision", "usual with Pillow's blur, stock": "pil"}
# MoCo v2's augmentation, the same as that of the usual loader.
OVERRIDES = (
    "sampler=two_clips",
    f"sampler.num_views={NUM_VIEWS}",
    f"sampler.num_frames={NUM_FRAMES}",
    "sampler.frame_stride=2",
    "transform=moco_aug_plus",
    f"transform.size={SIZE}",
    "transform.max_area=1.0",
    "transform.color_jitter=[0.4,0.4,0.4,0.1]",
)


@dataclass(frozen=True)
class Files:
    """Folders of made videos with the same content: as data sets are handed on, and as ``ssl-video prepare`` makes."""

    stock: Path
    prepared: Path


def make_files(folder: Path, *, number: int = BATCH_SIZE, num_frames: int = videos.NUM_FRAMES) -> Files:
    """Makes the stock videos and prepares them as ``ssl-video prepare`` does, or finds them made by the same code."""
    source, preparing = (inspect.getsource(module).encode() for module in (videos, prepare))
    made = Files(
        folder / f"stock_{_version(source)}_{num_frames}",
        folder / f"prepared_{_version(source + preparing)}_{num_frames}",
    )
    for seed in range(number):
        path = made.stock / f"video_{seed}.mp4"
        if not path.exists():
            videos.stock_video(path.with_name(f".part_{path.name}"), seed, num_frames=num_frames).rename(path)
    for file in files_to_prepare(index_folder(made.stock, progress=False)):
        if not (made.prepared / file.path).exists():
            prepare.prepare_file(file, made.prepared, prepare.PrepareSettings(), motion_folder=made.prepared / "motion")
    return made


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def our_config(root: Path, *, num_workers: int, overrides: Sequence[str] = ()) -> DictConfig:
    """A checked configuration of training on a folder of videos."""
    words = [
        *OVERRIDES,
        "dataset=folder",
        f"dataset.root={root}",
        f"dataset.num_workers={num_workers}",
        f"cache_dir={root.parent / 'cache'}",
        f"batch_size={BATCH_SIZE}",
        f"reader={our_reader()}",
        *overrides,
    ]
    return compose_checked("train", words, provided=PROVIDED, settings=TrainSettings)


def our_reader() -> str:
    """The reader that chooses by file."""
    return "auto" if "auto" in group_options("reader") else "pyav"


def our_data(
    root: Path, *, augment_on: AugmentOn, num_workers: int = 1, overrides: Sequence[str] = ()
) -> VideoDataModule:
    """The data module of a training run."""
    config = our_config(root, num_workers=num_workers, overrides=overrides)
    return build_datamodule(
        config, sampler=build(config.sampler), transform=build(config.transform), augment_on=augment_on
    )


class LoaderBlocks:
    """Blocks of batches of a loader, whose workers stay between the blocks.

    A block is iterated to its end, so that nothing is fetched ahead for the next: all that a block costs is its own.

    Args:
        batches: a loader of batches.
        order: what it goes by.
        num_batches: of a block.
    """

    def __init__(self, batches: Iterable[Any], order: BatchOrder | RepeatedOrder, *, num_batches: int) -> None:
        self.batches = batches
        self.order = order
        self.num_batches = num_batches

    def __call__(self, number: int) -> int:
        """Runs block ``number``; returns how many samples came."""
        for order in (self.order, getattr(self.order, "openings", self.order)):
            order.first_batch = number * self.num_batches
            order.num_batches = order.first_batch + self.num_batches
        return sum(1 for _ in self.batches) * BATCH_SIZE


def our_loader(
    root: Path,
    *,
    augment_on: AugmentOn,
    num_batches: int,
    num_workers: int = 1,
    overrides: Sequence[str] = (),
) -> LoaderBlocks:
    """Ours, on a folder."""
    datamodule = our_data(root, augment_on=augment_on, num_workers=num_workers, overrides=overrides)
    own = datamodule.training_loader(EPOCHS_AHEAD).openings
    order = own.batch_sampler
    assert isinstance(order, RepeatedOrder)
    # A run is one iteration, with which its workers end. Here they stay: eight that start anew for every block take
    # longer to start than to load it.
    kept: DataLoader[Any] = DataLoader(
        own.dataset,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=own.collate_fn,
        pin_memory=own.pin_memory,
        worker_init_fn=own.worker_init_fn,
        persistent_workers=True,
    )
    return LoaderBlocks(UnrolledLoader(kept, num_batches=EPOCHS_AHEAD), order, num_batches=num_batches)


def asked_videos(root: Path) -> Videos:
    """What a re-created loader reads: the files and frames that ours reads."""
    datamodule = our_data(root, augment_on="device")
    return Videos(datamodule.manifest, datamodule.sampler, datamodule.seed)


def peer_loader(dataset: Dataset[Any], asked: Videos, *, num_batches: int) -> LoaderBlocks:
    """A re-created loader with one worker, in the order of ours."""
    order = BatchOrder(range(len(asked.manifest)), batch_size=BATCH_SIZE, num_batches=EPOCHS_AHEAD, seed=asked.seed)
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=order, num_workers=1, persistent_workers=True)
    return LoaderBlocks(loader, order, num_batches=num_batches)


def per_core(files: Files, *, rounds: int, stock_batches: int = STOCK_BATCHES) -> list[Figure]:
    """Our loader against the usual one and V-JEPA 2's, each with one worker, all on one core."""
    prepared_batches = max(1, stock_batches * PREPARED_BATCHES // STOCK_BATCHES)
    kinds = {"stock": (files.stock, stock_batches), "prepared": (files.prepared, prepared_batches)}
    ours: dict[AugmentOn, str] = {"device": "ours for the device", "worker": "ours in the worker"}
    contenders: dict[str, Contender] = {}
    with on_cores(1):
        for kind, (root, num_batches) in kinds.items():
            for where, name in ours.items():
                contenders[f"{name}, {kind}"] = our_loader(root, augment_on=where, num_batches=num_batches)
            asked = asked_videos(root)
            contenders[f"V-JEPA 2's, {kind}"] = peer_loader(
                VJEPA2Loader(asked, size=SIZE), asked, num_batches=num_batches
            )
        asked = asked_videos(files.stock)
        for name, blur in USUAL.items():
            usual = UsualLoader(asked, size=SIZE, blur=blur)
            contenders[name] = peer_loader(usual, asked, num_batches=stock_batches)
        blocks = interleaved(contenders, rounds=rounds)
    against_usual = [
        _against(f"{our}, {kind}", usual, reach, blocks)
        for kind, reach in (("stock", 2.5), ("prepared", 20.0))
        for usual in USUAL
        for our in ours.values()
    ]
    against_v_jepa = [_against(f"{ours['device']}, {kind}", f"V-JEPA 2's, {kind}", 1.4, blocks) for kind in kinds]
    return against_usual + against_v_jepa


def _against(ours: str, theirs: str, reach: float, blocks: dict[str, list[Block]]) -> Figure:
    our, their = blocks[ours], blocks[theirs]
    return Figure(
        what=f"loader, per core: {ours}",
        against=theirs,
        bound="least",
        reach=reach,
        value=speedup(our, their, "cpu"),
        wall=speedup(our, their, "wall"),
        details={
            "ours, samples per second of CPU": rate(our, "cpu").median,
            "theirs": rate(their, "cpu").median,
        },
    )


def many_workers(files: Files, *, rounds: int, num_batches: int = 8) -> list[Figure]:
    """Eight workers on two cores against two workers on the same."""
    with on_cores(2), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create 8 worker processes")
        contenders: dict[str, Contender] = {
            str(number): our_loader(
                files.prepared, augment_on="device", num_batches=8 * num_batches, num_workers=number
            )
            for number in (2, 8)
        }
        blocks = interleaved(contenders, rounds=rounds)
    figure = Figure(
        what="loader with 8 workers on 2 cores, prepared",
        against="2 workers",
        bound="least",
        reach=0.95,
        value=speedup(blocks["8"], blocks["2"], "wall"),
        unit="ratio of wall time",
        details={
            "samples per second with 8": rate(blocks["8"], "wall").median,
            "with 2": rate(blocks["2"], "wall").median,
            "ratio of CPU time": speedup(blocks["8"], blocks["2"], "cpu").median,
        },
    )
    return [figure]
