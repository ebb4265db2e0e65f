"""Every conf/backbone/*.yaml builds what its first line says."""

import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import build_backbone
from ssl_video.utils.errors import InputError

FOLDER = Path(__file__).parents[2] / "conf" / "backbone"
BUILT = ["c3d", "mc3_18", "r2plus1d", "r2plus1d_18", "r3d", "r3d_18", "r3d_tiny", "s3d"]
BUILT += ["caffenet", "caffenet_o3n", "caffenet_o3n_small", "caffenet_opn", "caffenet_opn_small", "caffenet_small"]
BUILT += ["tsm_resnet18", "tsm_resnet50", "tsm_resnet_small"]
BUILT += ["slow_r50", "slow_r50_small", "cvrl_r3d_50", "cvrl_r3d_101", "cvrl_r3d_152"]
BUILT += ["cvrl_r3d_50_2x", "cvrl_r3d_50_4x", "cvrl_r3d_152_2x", "s3d_g", "s3d_g_small"]
BUILT += ["mvit_v2_s", "mvit_small", "swin3d_t", "swin3d_small", "vit_s", "vit_b", "vit_l", "vit_tiny"]
BUILT += ["c3d_small", "r2plus1d_small", "r3d_vcop_18", "r2plus1d_vcop_18"]
BUILT += ["videomae_s", "videomae_b", "videomae_l", "videomae_small", "vjepa2_l", "vjepa2_small"]
BUILT += ["videomae_s_finetuned", "videomae_b_finetuned", "videomae_l_finetuned"]


def test_all_backbones_are_there() -> None:
    assert set(BUILT) <= {path.stem for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", BUILT)
def test_preset_builds_the_backbone_of_its_first_line(name: str) -> None:
    """It names "N frames of P pixels or more", or "[N] frames of P pixels" where no others are taken, or neither."""
    path = FOLDER / f"{name}.yaml"
    comment = path.read_text(encoding="utf-8").splitlines()[0]
    stated = re.search(r"^# .*?([\d,]+) parameters, D = (\d+)", comment)
    assert stated, f"{path.name}: the first line must state the number of parameters and D"
    floor = re.search(r"(?:(\d+) )?frames of (\d+) pixels( or more)?", comment)
    frames, size = (int(floor[1] or 1), int(floor[2])) if floor else (1, 1)
    exact = floor is not None and floor[3] is None
    clip = (frames, size, size) if exact else (8, 48, 48)
    with torch.device("meta"):
        backbone = instantiate(OmegaConf.load(path))
        assert isinstance(backbone, Backbone)
        assert backbone(torch.empty(2, 3, *clip)).shape == (2, backbone.feature_dim)
    assert int(stated[1].replace(",", "")) == sum(weight.numel() for weight in backbone.parameters())
    assert int(stated[2]) == backbone.feature_dim
    assert (backbone.min_frames, backbone.min_size) == (frames, size)
    if exact:
        with pytest.raises(InputError):
            backbone.check_clips(torch.empty(2, 3, frames, size + 1, size))


@pytest.mark.parametrize("name", ["r3d_tiny", "caffenet_small", "caffenet_o3n_small", "tsm_resnet_small"])
def test_memory_format_of_the_command_line_changes_no_value(name: str) -> None:
    config = OmegaConf.create({"seed": 3, "backbone": OmegaConf.load(FOLDER / f"{name}.yaml")})
    backbone = build_backbone(config).eval()
    plain = instantiate(config.backbone).eval()
    plain.load_state_dict(backbone.state_dict())
    clips = torch.rand(2, 3, 6, 32, 32)
    torch.testing.assert_close(backbone(clips), plain(clips), rtol=1e-4, atol=1e-5)
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d)]
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    assert all(layer.weight.is_contiguous(memory_format=formats[layer.weight.ndim]) for layer in convolutions)
    assert any(not layer.weight.is_contiguous() for layer in convolutions)
