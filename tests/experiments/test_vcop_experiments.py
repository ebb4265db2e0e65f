"""The experiments of clip order prediction hold the values of its released code."""

import pytest

from support.experiments import held

PAPER = {
    "dataset.name": "ucf101",
    "seed": 632,
    "batch_size": 8,
    "trainer.max_epochs": 300,
    "method.num_clips": 3,
    "method.hidden_features": 512,
    "method.dropout": 0.5,
    "sampler._target_": "ssl_video.data.samplers.consecutive_clips.ConsecutiveClips",
    "sampler.num_views": 3,
    "sampler.num_frames": 16,
    "sampler.frame_stride": 1,
    "sampler.gap_frames": 8,
    "sampler.end_policy": "error",
    "transform._target_": "ssl_video.data.transforms.resize_random_crop.ResizeRandomCrop",
    "transform.resize": [128, 171],
    "transform.crop": 112,
    "transform.flip_probability": 0.0,
    "transform.mean": [0.0, 0.0, 0.0],
    "transform.std": [1.0, 1.0, 1.0],
    "input_transform.resize": [128, 171],
    "input_transform.crop": 112,
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 1e-3,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.nesterov": False,
    "scheduler._target_": "ssl_video.optim.schedules.Constant",
}


# The backbones' defaults are the sizes of the released code, one block per stage.
BACKBONES = [
    ("vcop_c3d_ucf101", {"backbone._target_": "ssl_video.backbones.c3d.C3D"}),
    ("vcop_r3d_ucf101", {"backbone._target_": "ssl_video.backbones.r3d.R3D", "backbone.blocks_per_stage": None}),
    (
        "vcop_r2plus1d_ucf101",
        {"backbone._target_": "ssl_video.backbones.r2plus1d.R2Plus1D", "backbone.blocks_per_stage": None},
    ),
]


@pytest.mark.parametrize(("experiment", "backbone"), BACKBONES)
def test_experiment_holds_the_papers_values(experiment: str, backbone: dict[str, object]) -> None:
    paper = PAPER | backbone
    assert held(experiment, paper) == paper
