"""A backbone in two lines: what it gives is what `ssl-video embed` writes, and only our classes are built."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import ssl_video
from ssl_video.backbones.r3d import R3D
from ssl_video.cli.main import main
from ssl_video.utils.checkpoint import save_backbone
from ssl_video.utils.errors import InputError, UnreadableVideo
from support.folders import numbered_folder

SIZES = {"widths": [8, 16], "blocks_per_stage": [1, 1], "stem_kernel": [3, 3, 3]}
CONFIG: dict[str, Any] = {
    "name": "r3d_tiny",
    "backbone": {"_target_": "ssl_video.backbones.r3d.R3D", **SIZES},
    "input_transform": {
        "_target_": "ssl_video.data.transforms.resize_center_crop.ResizeCenterCrop",
        "resize": 24,
        "crop": 16,
    },
    "reader": {"_target_": "ssl_video.data.readers.auto.AutoReader", "_partial_": True, "num_threads": 1},
    "seed": 0,
    "cache_dir": None,
    "num_frames": 4,
    "frame_stride": 3,
}


def saved(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    path = folder / "backbone.safetensors"
    torch.manual_seed(3)
    network = R3D(**SIZES)  # type: ignore[arg-type]
    save_backbone(path, network.state_dict(), config=config)
    return path


def test_two_lines_give_features(tmp_path: Path) -> None:
    saved(tmp_path)
    model = ssl_video.load(tmp_path)  # an exported folder
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 30, 40, 3), dtype=np.uint8)
    features = model(model.transform(frames))
    assert features.shape == (2, model.feature_dim) == (2, 16)
    assert (model.num_frames, model.frame_stride, model.training) == (4, 3, False)
    assert model.label.startswith("backbone.safetensors sha256:")
    one = model.transform(torch.from_numpy(frames[1]))
    assert one.shape == (1, 3, 4, 16, 16)
    torch.testing.assert_close(model(one)[0], features[1])
    features.sum().backward()  # it can be trained on
    assert next(model.parameters()).grad is not None


def test_a_wrong_layout_is_refused(tmp_path: Path) -> None:
    model = ssl_video.load(saved(tmp_path))
    with pytest.raises(ValueError, match="as the readers deliver them"):
        model.transform(torch.zeros(4, 3, 30, 40, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        model.transform(torch.zeros(4, 30, 40, 3))


def test_a_files_features_are_those_that_embed_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, videos = saved(tmp_path), numbered_folder(tmp_path / "videos", videos=2)
    words = [f"checkpoint={path}", "dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0"]
    assert main(["embed", *words, "cache_dir=cache", "reader.isolate=false", "-o", "all.parquet"]) == 0
    assert main(["embed", *words, "cache_dir=cache", "-o", "clips.parquet", "--level", "clip", "--num-clips", "2"]) == 0
    model = ssl_video.load(path)
    written = pq.read_table("all.parquet").to_pydict()
    by_clip = torch.tensor(pq.read_table("clips.parquet").to_pydict()["features"]).view(2, 2, -1)
    for row, name in enumerate(written["path"]):
        torch.testing.assert_close(
            model.embed_file(videos / name), torch.tensor(written["features"][row]), rtol=0, atol=0
        )
        with torch.inference_mode():
            clips = model.clips(videos / name, num_clips=2)
            torch.testing.assert_close(model(clips), by_clip[row], rtol=0, atol=0)
    assert not torch.equal(*map(torch.tensor, written["features"]))


def test_loading_draws_nothing_and_reads_no_other_video(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = torch.get_rng_state()
    model = ssl_video.load(path)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UnreadableVideo):
        model.embed_file(tmp_path / "missing.mp4")


def changed(**keys: Any) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    for name, value in keys.items():
        if isinstance(value, dict):
            config[name] |= value
        else:
            config[name] = value
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(backbone={"_target_": "subprocess.Popen"}), "none of the trusted packages"),
        (changed(backbone={"_target_": "torch.optim.SGD"}), "which is no backbone"),
        (changed(backbone={"_target_": "ssl_video.utils.errors.InputError"}), "which is no backbone"),
        (changed(input_transform={"_target_": "ssl_video.backbones.r3d.R3D"}), "which is no input_transform"),
        (changed(reader={"_target_": "ssl_video.data.manifest.Manifest"}), "which is no reader"),
        (changed(reader={"_partial_": False}), "which is no reader"),
        (changed(backbone={"widths": [8, 17]}), "of another backbone or method"),
        (changed(backbone={"widths": "wide"}), "refuses its arguments"),
        (changed(num_frames=0), "num_frames=0, which must be a number of at least 1"),
        (changed(frame_stride=None), "frame_stride=None"),
        ({"name": "r3d"}, "has no backbone in its configuration"),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ssl_video.load(saved(tmp_path, config))


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no configuration beside its weights"):
        ssl_video.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="neither of a run nor an export"):
        ssl_video.load(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(saved(tmp_path).read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        ssl_video.load(tmp_path / "cut.safetensors")


def test_evaluation_takes_an_exported_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "given"
    folder.mkdir()
    saved(folder)
    videos = numbered_folder(tmp_path / "videos", videos=1)
    words = [f"checkpoint={folder}", "dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0"]
    assert main(["embed", *words, "cache_dir=cache", "-o", "features.parquet"]) == 0
    described = json.loads((pq.read_schema("features.parquet").metadata or {})[b"ssl_video"])
    assert described["checkpoint"] == ssl_video.load(folder).label
