"""The experiment of odd-one-out holds the values of its paper, as far as they are known."""

import pytest

from support.experiments import held

PAPER = {
    "dataset.name": "ucf101",
    "method.num_branches": 6,
    "method.hidden_features": 128,
    "sampler._target_": "ssl_video.data.samplers.sub_videos.SubVideos",
    "sampler.num_views": 6,
    "sampler.num_frames": 6,
    "sampler.frame_stride": 1,
    "backbone._target_": "ssl_video.backbones.caffenet.CaffeNet",
    "backbone.input_size": 227,
    "backbone.fully_connected": [128],
    "backbone.encoding": "stack_of_differences",
    "backbone.num_frames": 6,
    "transform.crop": 227,
    "transform.flip_probability": 0.5,
}
# Not known; the values that its network is usually trained with.
ASSUMED = {
    "batch_size": 64,
    "trainer.max_steps": 100000,
    "method.fusion": "concat",
    "sampler.scheme": "consecutive",
    "scheduler._target_": "ssl_video.optim.schedules.Constant",
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 1e-2,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
}


@pytest.mark.parametrize(("experiment", "values"), [("o3n_caffenet_ucf101", PAPER | ASSUMED)])
def test_experiment_holds_the_values(experiment: str, values: dict[str, object]) -> None:
    assert held(experiment, values) == values
