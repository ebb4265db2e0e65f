"""What an experiment holds, to be compared with its paper's table."""

import inspect
from collections.abc import Iterable

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from support.methods import compose_train


def held(experiment: str, keys: Iterable[str]) -> dict[str, object]:
    """The experiment's values of some keys, lists as lists; None for an argument that is left to its class.

    Raises:
        KeyError: the configuration has no such key, and its class no such argument.
    """
    config = compose_train(f"experiment={experiment}")
    return {key: _held(config, key) for key in keys}


def _held(config: DictConfig, key: str) -> object:
    place, _, name = key.rpartition(".")
    part = OmegaConf.select(config, place) if place else config
    if part is None or (name not in part and name not in _arguments(part)):
        raise KeyError(
            f"{key} is no value of the experiment and no argument of its class; a table with it says nothing."
        )
    value = part.get(name)
    return list(value) if OmegaConf.is_list(value) else value


def _arguments(part: DictConfig) -> Iterable[str]:
    return inspect.signature(get_object(part["_target_"])).parameters if "_target_" in part else ()


# What the experiments of the rho-study share (Feichtenhofer et al., CVPR 2021, arXiv 2104.14558), two clips of 8x8 and
# the default augmentation.
RHO_STUDY: dict[str, object] = {
    "batch_size": 8,
    "trainer.max_epochs": 200,
    "sampler._target_": "ssl_video.data.samplers.random_clips.RandomClips",
    "sampler.num_views": 2,
    "sampler.num_frames": 8,
    "sampler.frame_stride": 9,
    "sampler.min_gap_frames": None,
    "sampler.max_gap_frames": None,
    "transform.size": 224,
    "transform.short_side": [256, 320],
    "transform.flip_probability": 0.5,
    "transform.color_jitter": [0.4, 0.4, 0.4, 0.1],
    "transform.jitter_probability": 0.8,
    "transform.gray_probability": 0.2,
    "transform.blur_probability": 0.5,
    "transform.blur_sigma": [0.1, 2.0],
    "transform.mean": [0.45, 0.45, 0.45],
    "transform.std": [0.225, 0.225, 0.225],
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "scheduler._target_": "ssl_video.optim.schedules.WarmupCosine",
    "scheduler.warmup_epochs": 35.0,
    "scheduler.rises_to": "cosine_value",
    "scheduler.final_factor": 0.0,
}
SLOW_R50: dict[str, object] = {
    "dataset.name": "kinetics400",
    "backbone._target_": "ssl_video.backbones.bottleneck_r3d.BottleneckR3D",
    "backbone.stem_kernel": None,  # the class's defaults are Slow R-50
    "backbone.blocks_per_stage": None,
    "input_transform.resize": 256,
    "input_transform.crop": 224,
    "input_transform.mean": [0.45, 0.45, 0.45],
    "input_transform.std": [0.225, 0.225, 0.225],
}
# LARS of its BYOL, SimCLR and SwAV, for a global batch of 512; the warm-up starts at 0.001 for each of 8 nodes.
RHO_LARS: dict[str, object] = {
    "optimizer._target_": "ssl_video.optim.lars.LARS",
    "optimizer.lr": 4.8,
    "optimizer.weight_decay": 1e-6,
    "optimizer.trust_coefficient": 0.001,
    "scheduler.warmup_start_factor": 0.00167,
}
