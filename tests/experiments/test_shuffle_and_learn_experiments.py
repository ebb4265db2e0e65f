"""The experiment of shuffle and learn holds the values of its paper and released code."""

import pytest

from support.experiments import held

RELEASED = {
    "batch_size": 32,
    "trainer.accumulate_grad_batches": 4,
    "trainer.max_steps": 100000,
    "method.negative_share": 0.75,
    "method.tuples_per_video": 1,
    "backbone.input_size": 227,
    "backbone.fully_connected": [4096, 4096],
    "backbone.batch_norm": "plain",
    "backbone.batch_norm_momentum": 0.001,
    "backbone.init": "caffenet",
    "sampler._target_": "ssl_video.data.samplers.five_frames.FiveFrames",
    "sampler.tau_max": 60,
    "sampler.tau_min": 15,
    "transform.resize": [227, 227],
    "transform.crop": 227,
    "transform.flip_probability": 0.0,
    "input_transform.crop": 227,
    "optimizer._target_": "ssl_video.optim.sgd.SGDWithBiasRate",
    "optimizer.lr": 1e-3,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.bias_lr_factor": 2.0,
    "scheduler._target_": "ssl_video.optim.schedules.MultiStep",
    "scheduler.milestones_steps": [80000],
    "scheduler.factor": 0.1,
}


@pytest.mark.parametrize(("experiment", "paper"), [("shuffle_and_learn_caffenet_ucf101", RELEASED)])
def test_experiment_holds_the_released_values(experiment: str, paper: dict[str, object]) -> None:
    assert held(experiment, paper) == paper
