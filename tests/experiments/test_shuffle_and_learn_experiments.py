"""The experiment of shuffle and learn holds the values of its paper and released code."""

import pytest

from support.experiments import held

RELEASED = {
    "dataset.name": "ucf101",
    "batch_size": 32,
    "trainer.accumulate_grad_batches": 4,
    "trainer.max_steps": 100000,
    "method.negative_share": 0.75,
    "method.tuples_per_video": 1,
    "backbone._target_": "ssl_video.backbones.caffenet.CaffeNet",
    "backbone.input_size": 227,
    "backbone.fully_connected": [4096, 4096],
    "backbone.batch_norm": "plain",
    "backbone.batch_norm_momentum": 0.001,
    "backbone.init": "caffenet",
    "sampler._target_": "ssl_video.data.samplers.five_frames.FiveFrames",
    "sampler.tau_max": 60,
    "sampler.tau_min": 15,
    "sampler.weighting": "prob",
    "transform._target_": "ssl_video.data.transforms.resize_random_crop.ResizeRandomCrop",
    "transform.resize": [227, 227],
    "transform.crop": 227,
    "transform.flip_probability": 0.0,
    "input_transform.resize": [227, 227],
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


@pytest.mark.parametrize("part", ["transform", "input_transform"])
def test_the_mean_is_caffes_in_rgb_and_pixels_keep_their_scale(part: str) -> None:
    values = held("shuffle_and_learn_caffenet_ucf101", [f"{part}.mean", f"{part}.std"])
    assert values[f"{part}.mean"] == pytest.approx([123.68 / 255, 116.779 / 255, 103.939 / 255], abs=1e-8)
    assert values[f"{part}.std"] == pytest.approx([1 / 255] * 3, abs=1e-8)
