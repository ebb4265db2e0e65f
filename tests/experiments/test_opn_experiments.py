"""The experiment of sorting sequences (OPN) holds the values of its released code."""

import pytest

from support.experiments import held

RELEASED = {
    "dataset.name": "ucf101",
    "batch_size": 64,
    "trainer.max_steps": 170000,
    "method.merge": "position",
    "method.hidden_features": 512,
    "method.dropout": 0.5,
    "method.gaussian_init": True,
    "method.batch_norm_momentum": 0.001,
    "backbone._target_": "ssl_video.backbones.caffenet.CaffeNet",
    "backbone.input_size": 80,
    "backbone.fully_connected": [1024],
    "backbone.batch_norm": "affine",
    "backbone.batch_norm_momentum": 0.001,
    "backbone.init": "opn",
    "sampler._target_": "ssl_video.data.samplers.moving_frames.MovingFrames",
    "sampler.num_frames": 4,
    "sampler.patch": 100,
    "transform._target_": "ssl_video.data.transforms.opn_patches.OPNPatches",
    "transform.patch_size": 100,
    "transform.size": 80,
    "transform.jitter": 5,
    "transform.channel_split": True,
    "transform.flip_probability": 0.5,
    "transform.mean": 96.5,
    "transform.std": 1.0,
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 1e-2,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "scheduler._target_": "ssl_video.optim.schedules.MultiStep",
    "scheduler.milestones_steps": [130000],
    "scheduler.factor": 0.1,
}


@pytest.mark.parametrize(("experiment", "paper"), [("opn_caffenet_ucf101", RELEASED)])
def test_experiment_holds_the_released_values(experiment: str, paper: dict[str, object]) -> None:
    assert held(experiment, paper) == paper
