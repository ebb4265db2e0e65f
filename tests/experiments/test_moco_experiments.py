"""The experiments of MoCo hold the values of the rho-study's paper and released code, and of the image recipes."""

import pytest

from support.experiments import RHO_STUDY, SLOW_R50, held

RHO_MOCO = RHO_STUDY | {
    "method._target_": "ssl_video.methods.moco.MoCo",
    "method.temperature": 0.1,
    "method.momentum": 0.994,
    "method.momentum_schedule": "cosine",
    "method.queue_length": 65536,
    "method.num_layers": 3,
    "method.hidden_features": 2048,
    "method.embedding_dim": 128,
    "method.batch_norm": "none",
    "method.batch_norm_group_size": None,
    "method.symmetric": True,
    "method.shuffle_bn": True,
    "method.multi_positive": "mean_of_ce",
    "method.fill_queue_first": True,
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 0.4,
    "optimizer.weight_decay": 1e-4,
    "scheduler.warmup_start_factor": 0.02,
}
# "aug+" of the released configurations, with four clips.
RHO4_AUG_PLUS = (
    RHO_MOCO
    | SLOW_R50
    | {
        "sampler.num_views": 4,
        "transform.short_side": None,
        "transform.min_area": 0.2,
        "transform.max_area": 0.766,
        "transform.color_jitter": [0.6, 0.6, 0.6, 0.15],
    }
)
IMAGE_MOCO = SLOW_R50 | {
    "batch_size": 32,  # on 8 GPUs: 256
    "trainer.max_epochs": 200,
    "method._target_": "ssl_video.methods.moco.MoCo",
    "method.symmetric": False,
    "method.shuffle_bn": True,
    "method.batch_norm": "none",
    "method.batch_norm_group_size": None,
    "method.queue_length": 65536,
    "method.embedding_dim": 128,
    "method.momentum": 0.999,
    "method.momentum_schedule": "constant",
    "method.fill_queue_first": False,
    "sampler.num_views": 2,
    "transform.size": 224,
    "transform.min_area": 0.2,
    "transform.max_area": 1.0,
    "transform.flip_probability": 0.5,
    "transform.gray_probability": 0.2,
    "transform.blur_sigma": [0.1, 2.0],
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 0.03,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-4,
}
MOCO_V1 = IMAGE_MOCO | {
    "method.num_layers": 1,
    "method.temperature": 0.07,
    "transform.color_jitter": [0.4, 0.4, 0.4, 0.4],
    "transform.jitter_probability": 1.0,
    "transform.blur_probability": 0.0,
    "scheduler._target_": "ssl_video.optim.schedules.MultiStep",
    "scheduler.milestones_epochs": [120.0, 160.0],
    "scheduler.factor": 0.1,
}
MOCO_V2 = IMAGE_MOCO | {
    "method.num_layers": 2,
    "method.hidden_features": 2048,
    "method.temperature": 0.2,
    "transform.color_jitter": [0.4, 0.4, 0.4, 0.1],
    "transform.jitter_probability": 0.8,
    "transform.blur_probability": 0.5,
    "scheduler._target_": "ssl_video.optim.schedules.WarmupCosine",
    "scheduler.warmup_epochs": 0.0,
    "scheduler.final_factor": 0.0,
}


@pytest.mark.parametrize(
    ("experiment", "paper"),
    [
        ("moco_r2plus1d_18_ucf101", RHO_MOCO),
        ("moco_slow_r50_kinetics400", RHO_MOCO | SLOW_R50),
        ("moco_rho4_slow_r50_kinetics400", RHO4_AUG_PLUS),
        ("moco_v1_slow_r50_kinetics400", MOCO_V1),
        ("moco_v2_slow_r50_kinetics400", MOCO_V2),
    ],
)
def test_experiment_holds_the_papers_values(experiment: str, paper: dict[str, object]) -> None:
    assert held(experiment, paper) == paper
