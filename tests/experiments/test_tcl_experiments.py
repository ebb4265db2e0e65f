"""The experiment of TCL holds the values of its released code."""

import inspect

import pytest

from ssl_video.methods.tcl import TCL
from support.experiments import held

PAPER = {
    "dataset.name": "something_something_v2_mini",
    "seed": 123,
    "batch_size": 8,
    "label_fraction": 0.05,
    "trainer.max_epochs": 400,
    "trainer.gradient_clip_val": 20.0,
    "method._target_": "ssl_video.methods.tcl.TCL",
    "method.stage": "train",
    "method.supervised_until": 50.0,
    "method.finetune_from": 350.0,
    "method.phases_in": "epochs",
    "method.instance_weight": 9.0,
    "method.group_weight": 1.0,
    "method.pseudo_weight": 1.0,
    "method.temperature": 0.5,
    "method.threshold": 0.8,
    "method.contrast_on": "prob",
    "semi.unlabeled_ratio": 3.0,
    "semi.include_labeled_in_unlabeled": False,
    "semi.epoch_by": "shorter",
    "semi.views.fast.sampler.num_frames": 8,
    "semi.views.fast.transform.size": 224,
    "semi.views.slow.sampler.num_frames": 4,
    "semi.views.slow.sampler.dense": False,
    "semi.views.slow.transform.size": 224,
    "sampler._target_": "ssl_video.data.samplers.segment_frames.SegmentFrames",
    "sampler.num_views": 1,
    "sampler.num_frames": 8,
    "sampler.centre": False,
    "sampler.dense": False,
    "transform._target_": "ssl_video.data.transforms.multi_scale_crop.MultiScaleCrop",
    "transform.size": 224,
    "transform.scales": [1.0, 0.875, 0.75, 0.66],
    "transform.max_distortion": 1,
    "transform.flip_probability": 0.0,
    "transform.mean": [0.485, 0.456, 0.406],
    "transform.std": [0.229, 0.224, 0.225],
    "input_transform.resize": 256,
    "input_transform.crop": 224,
    "backbone._target_": "ssl_video.backbones.tsm_resnet.TSMResNet",
    "backbone.blocks_per_stage": [2, 2, 2, 2],
    "backbone.weights": None,  # from scratch
    "backbone.shift_on": "block_input",
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.nesterov": False,
    "scheduler._target_": "ssl_video.optim.schedules.CosineRestart",
    "scheduler.restart_at": 350.0,
    "scheduler.restart_in": "epochs",
    "scheduler.restart_factor": 0.1,
    "scheduler.cosine_to_phase_end": False,
    "scheduler.per_epoch": True,
}

# Not in the configuration: the class's own.
DEFAULTS = {
    "stop_gradient": True,
    "dropout": 0.5,
    "bias_lr_factor": 2.0,
    "classifier_lr_factor": 5.0,
    "classifier_bias_lr_factor": 10.0,
}


@pytest.mark.parametrize("experiment", ["tcl_tsm_resnet18_something_something_v2_mini"])
def test_experiment_holds_the_papers_values(experiment: str) -> None:
    assert held(experiment, PAPER) == PAPER
    assert held(experiment, [f"method.{name}" for name in DEFAULTS]) == {f"method.{name}": None for name in DEFAULTS}
    signature = inspect.signature(TCL).parameters
    assert {name: signature[name].default for name in DEFAULTS} == DEFAULTS
