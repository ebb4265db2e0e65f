"""What a checkpoint brings to an evaluation."""

from typing import Any

import pytest

from ssl_video.cli import weights
from ssl_video.cli.weights import complete_overrides
from ssl_video.hub.weights import Weights

CONFIG: dict[str, Any] = {
    "backbone": {"_target_": "ssl_video.backbones.r3d.R3D"},
    "input_transform": {"_target_": "ssl_video.data.transforms.resize_center_crop.ResizeCenterCrop"},
    "reader": {"_target_": "ssl_video.data.readers.pyav.PyAVReader", "_partial_": True},
    "num_frames": 8,
    "frame_stride": 2,
    "seed": 0,
    "cache_dir": None,
}
DATASET: dict[str, Any] = {"_target_": "ssl_video.data.datamodule.VideoDataModule"}


@pytest.fixture(autouse=True)
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "read_weights", lambda name: Weights({}, CONFIG, DATASET, "last.ckpt", None))


def test_a_checkpoint_brings_its_data_set_and_reader() -> None:
    words = complete_overrides(["checkpoint=run"])
    assert {"dataset=from_checkpoint", "reader=from_checkpoint", "backbone=from_checkpoint"} <= set(words)
    assert words[-1] == "checkpoint=run"


def test_another_data_set_keeps_the_reader_that_it_needs() -> None:
    """A run on Jester reads images; UCF101 must not be read as images, and the other way round."""
    words = complete_overrides(["checkpoint=run", "dataset=jester"])
    assert not any(word.startswith("reader=") for word in words)
    assert "backbone=from_checkpoint" in words
    assert "reader=pyav" in complete_overrides(["checkpoint=run", "dataset=ucf101", "reader=pyav"])
