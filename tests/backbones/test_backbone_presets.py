"""Every conf/backbone/*.yaml builds what its first line says."""

import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssl_video.backbones.base import Backbone

FOLDER = Path(__file__).parents[2] / "conf" / "backbone"
BUILT = ["c3d", "mc3_18", "r2plus1d", "r2plus1d_18", "r3d", "r3d_18", "r3d_tiny", "s3d"]


def test_all_backbones_are_there() -> None:
    assert set(BUILT) <= {path.stem for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", BUILT)
def test_preset_builds_the_backbone_of_its_first_line(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    with torch.device("meta"):
        backbone = instantiate(OmegaConf.load(path))
        assert isinstance(backbone, Backbone)
        assert backbone(torch.empty(2, 3, 8, 48, 48)).shape == (2, backbone.feature_dim)
    comment = path.read_text(encoding="utf-8").splitlines()[0]
    stated = re.search(r"^# .*?([\d,]+) parameters, D = (\d+)", comment)
    assert stated, f"{path.name}: the first line must state the number of parameters and D"
    assert int(stated[1].replace(",", "")) == sum(weight.numel() for weight in backbone.parameters())
    assert int(stated[2]) == backbone.feature_dim
    floor = re.search(r"(\d+) frames of (\d+) pixels or more", comment)
    assert (backbone.min_frames, backbone.min_size) == ((int(floor[1]), int(floor[2])) if floor else (1, 1))
