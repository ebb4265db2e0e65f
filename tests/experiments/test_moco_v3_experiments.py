"""The experiment of MoCo v3 holds the values of its image recipe for ViT; clips, stride and batch are ours."""

from support.experiments import held

VIEW = {
    "size": 224,
    "min_area": 0.08,
    "max_area": 1.0,
    "flip_probability": 0.5,
    "color_jitter": [0.4, 0.4, 0.2, 0.1],
    "jitter_probability": 0.8,
    "gray_probability": 0.2,
    "blur_sigma": [0.1, 2.0],
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
    "batch_size": 8,  # on 32 GPUs: 256
    "trainer.max_epochs": 300,
    "backbone._target_": "ssl_video.backbones.vit.ViT",
    "backbone.freeze_patch_embedding": True,
    "method._target_": "ssl_video.methods.moco_v3.MoCoV3",
    "method.hidden_features": 4096,
    "method.embedding_dim": 256,
    "method.projector_layers": 3,
    "method.predictor_layers": 2,
    "method.predictor_batch_norm": "all",
    "method.temperature": 0.2,
    "method.momentum": 0.99,
    "method.momentum_schedule": "cosine",
    "method.sync_batch_norm": True,
    "sampler.num_views": 2,
    "sampler.num_frames": 16,
    "sampler.frame_stride": 4,
    "optimizer._target_": "torch.optim.AdamW",
    "optimizer.lr": 1.5e-4,
    "optimizer.weight_decay": 0.1,
    "scheduler._target_": "ssl_video.optim.schedules.WarmupCosine",
    "scheduler.warmup_epochs": 40.0,
    "scheduler.rises_to": "full",
    "scheduler.final_factor": 0.0,
}


def test_experiment_holds_the_papers_values() -> None:
    assert held("moco_v3_vit_b_kinetics400", PAPER) == PAPER
