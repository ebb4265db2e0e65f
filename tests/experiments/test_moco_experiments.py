"""The experiments of MoCo hold the values of the rho-study's paper and released code."""

import pytest

from support.experiments import held

RHO_MOCO = {
    "batch_size": 8,
    "trainer.max_epochs": 200,
    "method.temperature": 0.1,
    "method.momentum": 0.994,
    "method.momentum_schedule": "cosine",
    "method.queue_length": 65536,
    "method.hidden_features": 2048,
    "method.embedding_dim": 128,
    "method.batch_norm": "none",
    "method.symmetric": True,
    "method.shuffle_bn": True,
    "method.multi_positive": "mean_of_ce",
    "method.fill_queue_first": True,
    "sampler.num_views": 2,
    "sampler.num_frames": 8,
    "sampler.frame_stride": 9,
    "transform.size": 224,
    "transform.short_side": [256, 320],
    "transform.flip_probability": 0.5,
    "transform.color_jitter": [0.4, 0.4, 0.4, 0.1],
    "transform.jitter_probability": 0.8,
    "transform.gray_probability": 0.2,
    "transform.blur_probability": 0.5,
    "transform.blur_sigma": [0.1, 2.0],
    "optimizer.lr": 0.4,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-4,
    "scheduler.warmup_epochs": 35.0,
    "scheduler.rises_to": "cosine_value",
}


@pytest.mark.parametrize(("experiment", "paper"), [("moco_r2plus1d_18_ucf101", RHO_MOCO)])
def test_experiment_holds_the_papers_values(experiment: str, paper: dict[str, object]) -> None:
    assert held(experiment, paper) == paper
