"""The experiment of CVRL holds the values of its released code."""

from support.experiments import held

VIEW = {
    "size": 224,
    "min_area": 0.3,
    "max_area": 1.0,
    "min_aspect": 0.5,
    "max_aspect": 2.0,
    "flip_probability": 0.5,
    "color_jitter": [0.8, 0.8, 0.8, 0.2],
    "jitter_probability": 0.8,
    "gray_probability": 0.2,
    "blur_sigma": [0.1, 2.0],
    "blur_kernel_size": 23,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "consistent": True,
}
# What differs between the views: blur and solarising.
ROLES = {"first": (1.0, 0.0), "second": (0.1, 0.2)}
VIEWS = {f"transform.views.{view}.{key}": value for view in ROLES for key, value in VIEW.items()} | {
    f"transform.views.{view}.{key}_probability": value
    for view, values in ROLES.items()
    for key, value in zip(("blur", "solarize"), values, strict=True)
}
PAPER = VIEWS | {
    "dataset.name": "kinetics400",
    "batch_size": 16,  # on 64 GPUs: 1024
    "trainer.max_epochs": 200,
    "backbone._target_": "ssl_video.backbones.bottleneck_r3d.BottleneckR3D",
    "backbone.stem_kernel": [5, 7, 7],
    "backbone.stem_stride": [2, 2, 2],
    "method._target_": "ssl_video.methods.cvrl.CVRL",
    "method.hidden_features": 2048,
    "method.embedding_dim": 128,
    "method.num_layers": 4,
    "method.batch_norm": "hidden",
    "method.batch_norm_momentum": 0.003,
    "method.temperature": 0.1,
    "method.total": "sum",
    "method.sync_batch_norm": True,
    "sampler._target_": "ssl_video.data.samplers.interval_clips.IntervalClips",
    "sampler.num_frames": 16,
    "sampler.frame_stride": 2,
    "sampler.interval": "linear",
    "sampler.end_policy": "loop",
    "input_transform.mean": [0.0, 0.0, 0.0],
    "input_transform.std": [1.0, 1.0, 1.0],
    "input_transform.crop": 224,
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 0.32,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-6,
    "scheduler._target_": "ssl_video.optim.schedules.WarmupCosine",
    "scheduler.warmup_epochs": 5.0,
    "scheduler.warmup_start_factor": 0.0,
    "scheduler.rises_to": "cosine_value",
    "scheduler.final_factor": 0.0,
}


def test_experiment_holds_the_papers_values() -> None:
    assert held("cvrl_r3d_50_kinetics400", PAPER) == PAPER
