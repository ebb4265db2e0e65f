"""The papers' recipes of linear evaluation and fine-tuning hold the papers' values."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.utils.config import build, compose_checked

CONTRASTIVE = "ssl_video.data.transforms.contrastive.ContrastiveTransform"
SGD = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9}
COSINE = {"scheduler._target_": "ssl_video.optim.schedules.WarmupCosine", "scheduler.final_factor": 0.0}
MULTI_STEP = {"scheduler._target_": "ssl_video.optim.schedules.MultiStep", "scheduler.factor": 0.1}
TEN_BY_THREE = {"test_clips": 10, "test_crops": "three", "average": "probabilities"}
TEST_AT_256 = {"test_transform.resize": 256, "test_transform.crop": 256}
RHO_CLIPS = {"train_sampler.num_frames": 8, "train_sampler.frame_stride": 9, "train_sampler.num_views": 1}
RHO_TRANSFORM = {
    "train_transform._target_": CONTRASTIVE,
    "train_transform.size": 224,
    "train_transform.short_side": [256, 320],
    "train_transform.flip_probability": 0.5,
    "train_transform.jitter_probability": 0.0,
    "train_transform.gray_probability": 0.0,
    "train_transform.blur_probability": 0.0,
    "train_transform.mean": [0.45, 0.45, 0.45],
    "train_transform.std": [0.225, 0.225, 0.225],
    "test_transform.mean": [0.45, 0.45, 0.45],
    "test_transform.std": [0.225, 0.225, 0.225],
}

# Kinetics-400 linear evaluation of the rho-study: SGD 4.0 for 512 clips, 60 epochs, 8 of warm-up, no decay.
RHO_LINEAR = {
    **SGD,
    **COSINE,
    **TEN_BY_THREE,
    "optimizer.weight_decay": 0.0,
    "scheduler.warmup_epochs": 8.0,
    "scheduler.warmup_start_factor": 0.0,
    "scheduler.rises_to": "cosine_value",
    "epochs": 60.0,
    "feature_norm": "none",
    "init_std": 0.01,
}
# CVRL: SGD 32 for 1024 clips, 100 epochs, 5 of warm-up, no decay, features of length 1.
CVRL_LINEAR = {
    **SGD,
    **COSINE,
    **TEN_BY_THREE,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 0.0,
    "scheduler.warmup_epochs": 5.0,
    "scheduler.rises_to": "cosine_value",
    "epochs": 100.0,
    "batch_size": 1024,
    "feature_norm": "l2",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "linear_probe_rho_study": {**RHO_LINEAR, "solver": "sgd", "lrs": [4.0], "batch_size": 512},
    "linear_probe_cvrl": {**CVRL_LINEAR, "solver": "sgd", "lrs": [32.0], "num_frames": 32},
    "linear_probe_in_loop_rho_study": {
        **RHO_LINEAR,
        **RHO_CLIPS,
        **RHO_TRANSFORM,
        **TEST_AT_256,
        "optimizer.lr": 0.5,  # 4.0 * 64 / 512
        "batch_size": 64,
        "dropout": 0.0,
        "bn_mode": "eval",
        "select": "last",
    },
    "linear_probe_in_loop_cvrl": {
        **CVRL_LINEAR,
        **TEST_AT_256,
        "optimizer.lr": 32.0,
        "train_sampler.num_frames": 32,
        "train_sampler.frame_stride": 2,
        "train_sampler.num_views": 1,
        "train_transform._target_": CONTRASTIVE,
        "train_transform.size": 224,
        "train_transform.short_side": None,
        "train_transform.min_area": 0.3,
        "train_transform.max_area": 1.0,
        "train_transform.min_aspect": 0.5,
        "train_transform.max_aspect": 2.0,
        "train_transform.jitter_probability": 0.0,
        "train_transform.gray_probability": 0.0,
        "train_transform.blur_probability": 0.0,
        "train_transform.mean": [0.0, 0.0, 0.0],
        "train_transform.std": [1.0, 1.0, 1.0],
        "test_transform.mean": [0.0, 0.0, 0.0],
        "test_transform.std": [1.0, 1.0, 1.0],
        "dropout": 0.0,
        "bn_mode": "eval",
        "select": "last",
    },
    "finetune_vcop": {
        **SGD,
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 5e-4,
        "optimizer.nesterov": False,
        "decay_all": True,
        "backbone_lr_factor": 1.0,
        "classifier_lr_factor": 1.0,
        "layer_decay": 1.0,
        "scheduler._target_": "ssl_video.optim.schedules.Constant",
        "batch_size": 8,
        "epochs": 150.0,
        "dropout": 0.0,
        "train_sampler._target_": "ssl_video.data.samplers.random_clips.RandomClips",
        "train_sampler.num_views": 1,
        "train_sampler.num_frames": 16,
        "train_sampler.frame_stride": 1,
        "train_transform._target_": "ssl_video.data.transforms.resize_random_crop.ResizeRandomCrop",
        "train_transform.resize": [128, 171],
        "train_transform.crop": 112,
        "train_transform.flip_probability": 0.0,
        "train_transform.mean": [0.0, 0.0, 0.0],
        "train_transform.std": [1.0, 1.0, 1.0],
        "select": "best_on_validation",
        "validation_videos": 800,
        "test_clips": 10,
        "test_crops": "centre",
        "test_sampler": None,
        "test_transform.resize": [128, 171],
        "test_transform.crop": 112,
        "test_transform.mean": [0.0, 0.0, 0.0],
        "test_transform.std": [1.0, 1.0, 1.0],
        "average": "logits",
    },
    "finetune_ctp": {
        **SGD,
        **MULTI_STEP,
        "optimizer.lr": 0.01,
        "optimizer.weight_decay": 5e-4,
        "scheduler.milestones_epochs": [60.0, 120.0],
        "batch_size": 32,
        "epochs": 150.0,
        "dropout": 0.5,
        "train_sampler.num_frames": 16,
        "train_sampler.frame_stride": 2,
        "train_transform.size": 112,
        "train_transform.short_side": [112, 144],
        "train_transform.flip_probability": 0.35,
        "test_clips": 10,
        "test_crops": "centre",
    },
    "finetune_two_stream": {
        **SGD,
        **MULTI_STEP,
        "optimizer.lr": 1e-2,
        "scheduler.milestones_steps": [14000],
        "steps": 20000,
        "epochs": None,
        "batch_size": 256,
        "dropout": 0.5,
        "train_sampler.num_frames": 1,
        "train_transform.flip_probability": 0.5,
        "test_clips": 25,
        "test_crops": "ten",
        "average": "probabilities",
    },
    "finetune_rho_study": {
        **SGD,
        **MULTI_STEP,
        **RHO_CLIPS,
        **RHO_TRANSFORM,
        "optimizer.lr": 0.025,
        "optimizer.weight_decay": 0.0,
        "scheduler.milestones_epochs": [60.0, 120.0, 180.0],
        "batch_size": 64,
        "epochs": 200.0,
        "dropout": 0.8,
        "select": "last",
    },
    "finetune_tcl": {
        **SGD,
        "optimizer.lr": 0.02,
        "optimizer.weight_decay": 1e-4,
        "decay_all": False,
        "bias_lr_factor": 2.0,
        "classifier_lr_factor": 5.0,
        "classifier_bias_lr_factor": 10.0,
        "gradient_clip": 20.0,
        "scheduler._target_": "ssl_video.optim.schedules.CosineRestart",
        "scheduler.restart_at": 1.0,
        "scheduler.restart_in": "share",
        "scheduler.per_epoch": True,
        "batch_size": 8,
        "epochs": 400.0,
        "dropout": 0.5,
        "dropout_of": "time",
        "init_std": 0.001,
        "train_sampler._target_": "ssl_video.data.samplers.segment_frames.SegmentFrames",
        "train_sampler.num_frames": 8,
        "train_sampler.centre": False,
        "train_transform._target_": "ssl_video.data.transforms.multi_scale_crop.MultiScaleCrop",
        "train_transform.size": 224,
        "train_transform.scales": [1.0, 0.875, 0.75, 0.66],
        "train_transform.flip_probability": 0.0,
        "train_transform.mean": [0.485, 0.456, 0.406],
        "train_transform.std": [0.229, 0.224, 0.225],
        "test_sampler._target_": "ssl_video.data.samplers.segment_frames.SegmentFrames",
        "test_sampler.num_frames": 8,
        "test_sampler.centre": True,
        "test_clips": 1,
        "test_crops": "centre",
        "test_transform.resize": 256,
        "test_transform.crop": 224,
        "test_transform.mean": [0.485, 0.456, 0.406],
        "test_transform.std": [0.229, 0.224, 0.225],
        "average": "logits",
    },
}


def composed(*overrides: str) -> DictConfig:
    words = ["checkpoint=random", *overrides]
    config = compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)
    assert isinstance(config.evaluation, DictConfig)
    return config.evaluation


def held(node: DictConfig, key: str) -> object:
    value = OmegaConf.select(node, key, default="nothing of this name")
    if value == "nothing of this name":
        assert key == "train_transform.short_side", key  # left to its class, where it is None
        return None
    return list(value) if OmegaConf.is_list(value) else value


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_holds_the_papers_values(variant: str) -> None:
    node = composed(f"evaluation={variant}")
    assert {key: held(node, key) for key in VARIANTS[variant]} == VARIANTS[variant]
    protocol = build(node)
    assert variant.startswith(f"{protocol.name}_")


def test_every_variant_has_its_table(repository: Path) -> None:
    files = {
        file.stem
        for pattern in ("finetune_*", "linear_probe_*")
        for file in (repository / "conf/evaluation").glob(f"{pattern}.yaml")
    }
    assert files - {"linear_probe_in_loop"} == VARIANTS.keys()


def test_command_line_wins_over_a_variant() -> None:
    node = composed("evaluation=finetune_vcop", "evaluation.epochs=3", "evaluation.optimizer.lr=0.5")
    protocol = build(node)
    assert (protocol.epochs, protocol.optimizer.keywords["lr"]) == (3, 0.5)
    node = composed("evaluation=finetune", "optimizer@evaluation.optimizer=sgd", "evaluation.optimizer.lr=0.5")
    assert build(node).optimizer.keywords == {"lr": 0.5, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}


@pytest.mark.parametrize("evaluation", ["finetune", "linear_probe_in_loop", "finetune_two_stream"])
def test_clips_fit_what_the_checkpoint_was_trained_with(evaluation: str) -> None:
    words = ["num_frames=4", "frame_stride=3", "input_transform=kinetics"]
    node = composed(f"evaluation={evaluation}", *words)
    assert node.train_transform.size == 224
    assert node.train_transform.mean == [0.45, 0.45, 0.45]
    if evaluation != "finetune_two_stream":
        assert (node.train_sampler.num_frames, node.train_sampler.frame_stride) == (4, 3)


def test_mistakes_in_a_recipe_are_found_before_it_starts() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'momentum'"):
        composed("evaluation=finetune_vcop", "+evaluation.optimizer.momentun=0.5")
    with pytest.raises(ValueError, match=r"evaluation\.select='best'"):
        composed("evaluation=finetune", "evaluation.select=best")
    with pytest.raises(ValueError, match="give one of them"):
        build(composed("evaluation=finetune", "evaluation.steps=5"))
