"""A batch that is finished on the device is the one that the workers would have finished."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import AugmentOn, VideoDataModule
from ssl_video.data.dataset import View
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.semi_batch import SemiBatch
from ssl_video.data.semi_part import SemiPart
from ssl_video.data.sources import folder
from ssl_video.data.transforms.base import Transform
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.data.transforms.multi_scale_crop import MultiScaleCrop
from ssl_video.data.transforms.opn_patches import OPNPatches
from ssl_video.data.transforms.per_view import PerView
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.data.transforms.resize_random_crop import ResizeRandomCrop
from support.folders import labelled_folder

TRANSFORMS: dict[str, Transform] = {
    "contrastive": ContrastiveTransform(size=24, channel_mix_probability=0.3),
    "per_frame": ContrastiveTransform(size=24, consistent=False),
    "per_view": PerView(
        views={
            "first": ContrastiveTransform(size=24, blur_probability=1.0),
            "second": ContrastiveTransform(size=24, blur_probability=0.1, color_jitter=[0.8, 0.8, 0.8, 0.2]),
        }
    ),
    "random_crop": ResizeRandomCrop(resize=32, crop=24, flip_probability=0.5),
    "multi_scale": MultiScaleCrop(size=24, flip_probability=0.5),
    "opn": OPNPatches(patch_size=30, size=24, jitter=2),
    "centre": ResizeCenterCrop(resize=30, crop=24),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("coloured"), videos=10)


def batch_of(
    root: Path, cache: Path, transform: Transform, augment_on: AugmentOn, *, batch_size: int = 8, **changes: Any
) -> Any:
    """The first training batch as a method gets it."""
    datamodule = VideoDataModule(
        name="folder",
        source=folder,
        root=str(root),
        labels=str(root / "labels.csv"),
        test_groups=[],
        sampler=RandomClips(num_views=2, num_frames=3, frame_stride=2),
        transform=transform,
        decoder=DirectDecoder(PyAVReader),
        batch_size=batch_size,
        seed=3,
        cache_dir=cache,
        num_workers=0,
        augment_on=augment_on,
        **changes,
    )
    batch: Any = next(iter(datamodule.training_loader(1)))
    clips = batch.clips if isinstance(batch, ClipBatch) else batch.labeled.clips
    assert clips.dtype == (torch.float32 if augment_on == "worker" else torch.uint8)
    return datamodule.on_after_batch_transfer(batch.to("cpu"), 0)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_worker_and_device_give_the_same_clips(videos: Path, tmp_path: Path, name: str) -> None:
    worker, device = (batch_of(videos, tmp_path, TRANSFORMS[name], where) for where in ("worker", "device"))
    assert device.clips.shape == (8, 2, 3, 3, 24, 24)
    assert device.clips.dtype == torch.float32
    assert not device.values
    assert torch.equal(worker.indices, device.indices)
    torch.testing.assert_close(device.clips, worker.clips, atol=1e-5, rtol=0)
    assert float(worker.clips.std()) > 0.05


def test_views_of_unlabelled_videos_are_the_same_too(videos: Path, tmp_path: Path) -> None:
    sampler = RandomClips(num_views=2, num_frames=3, frame_stride=2)
    views = {"weak": View(sampler, TRANSFORMS["random_crop"]), "strong": View(sampler, TRANSFORMS["contrastive"])}
    semi = SemiPart(views=views, label_fraction=0.5, unlabeled_ratio=1.0, epoch_by="shorter")
    worker, device = (
        batch_of(videos, tmp_path, TRANSFORMS["multi_scale"], where, semi=semi, batch_size=4)
        for where in ("worker", "device")
    )
    assert isinstance(worker, SemiBatch) and isinstance(device, SemiBatch)
    torch.testing.assert_close(device.labeled.clips, worker.labeled.clips, atol=1e-5, rtol=0)
    for name in views:
        torch.testing.assert_close(device.unlabeled[name].clips, worker.unlabeled[name].clips, atol=1e-5, rtol=0)
