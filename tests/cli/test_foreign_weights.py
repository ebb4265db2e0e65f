"""``checkpoint=`` with files that no run of ours wrote."""

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import video

from ssl_video.cli import evaluate, train
from ssl_video.cli.foreign_weights import NEEDED, PUBLISHED_INPUTS, fitting_backbones
from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.cli.weights import complete_overrides
from ssl_video.utils.checkpoint import file_digest, save_backbone
from ssl_video.utils.config import compose_checked, plain
from support.folders import REPOSITORY, SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
INPUT = ["input_transform=small", "num_frames=4", "frame_stride=2"]
R3D_18 = ["backbone=r3d_18", *INPUT]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=12)


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("foreign") / "r3d_18-b3b3357e.pth"
    torch.save(video.r3d_18(weights=None).state_dict(), path)
    return path


def command(videos: Path, checkpoint: Path | str, *words: str) -> list[str]:
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    small = ["dataset.num_workers=0", "evaluation=knn", "evaluation.num_clips=1", "batch_size=4"]
    return [f"checkpoint={checkpoint}", *data, *small, *words]


def result(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "metrics.json").read_text())
    return content


def refused(printed: Printed, words: Sequence[str]) -> str:
    printed.readouterr()
    assert evaluate.main(list(words)) == 2
    assert not list(Path().rglob("metrics.json"))
    return printed.readouterr().err


# --- what is loaded ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchvisions_file_is_evaluated_as_ours_with_the_same_weights(
    videos: Path, torchvision_file: Path, capsys: Printed
) -> None:
    assert evaluate.main(command(videos, torchvision_file, *R3D_18, "run_dir=foreign")) == 0
    printed = capsys.readouterr().out
    words = "100 of 100 tensors loaded; 0 missing, 2 unexpected (fc.weight, fc.bias)"
    assert f"checkpoint={torchvision_file}: {words}" in printed
    found = result("foreign")
    assert found["checkpoint"] == f"r3d_18-b3b3357e.pth sha256:{file_digest(torchvision_file)}"
    assert found["backbone"] == "r3d_18"
    assert "random" in found["baselines"]

    config = compose_checked("evaluate", ["checkpoint=random", *R3D_18], provided=PROVIDED, settings=EvaluateSettings)
    backbone = instantiate(config.backbone)
    names = {backbone.other_names(name)[0]: name for name in backbone.state_dict()}
    state = {names[name]: tensor for name, tensor in torch.load(torchvision_file).items() if "fc." not in name}
    nodes = {key: plain(config[key]) for key in ("backbone", "input_transform", "reader")}
    values = {"num_frames": 4, "frame_stride": 2, "seed": 0, "cache_dir": None}
    save_backbone(Path("ours.safetensors"), state, config={"name": "r3d_18", **nodes, **values})
    assert evaluate.main(command(videos, "ours.safetensors", "run_dir=ours")) == 0
    assert "tensors loaded" not in capsys.readouterr().out
    ours = result("ours")
    for key in ("metrics", "intervals", "baselines", "settings", "backbone", "videos", "manifest_hash"):
        assert ours[key] == found[key]


def test_hugging_faces_safetensors(videos: Path, capsys: Printed) -> None:
    """Their metadata, if any, holds the format alone."""
    backbone = instantiate(OmegaConf.load(REPOSITORY / "conf" / "backbone" / "videomae_small.yaml"))
    state = {f"videomae.{backbone.other_names(name)[1]}": tensor for name, tensor in backbone.state_dict().items()}
    state["mask_token"] = torch.zeros(1, 1, 8)
    save_file(state, "model.safetensors", metadata={"format": "pt"})
    assert evaluate.main(command(videos, "model.safetensors", "backbone=videomae_small", *INPUT, "run_dir=a")) == 0
    total = len(backbone.state_dict())
    printed = capsys.readouterr().out
    assert f"model.safetensors: {total} of {total} tensors loaded; 0 missing, 1 unexpected (mask_token)" in printed
    assert result("a")["checkpoint"].startswith("model.safetensors sha256:")


def test_a_training_starts_from_the_file_of_another_project(videos: Path, capsys: Printed) -> None:
    """The small R3D behind the names of clip order prediction's released code."""
    backbone = instantiate(OmegaConf.load(REPOSITORY / "conf" / "backbone" / "r3d_tiny.yaml"))
    state = {f"base_network.{backbone.other_names(name)[0]}": tensor for name, tensor in backbone.state_dict().items()}
    assert "base_network.conv1.temporal_spatial_conv.weight" in state
    torch.save({**state, "fc8.weight": torch.zeros(6, 1536)}, "vcop.pt")
    data = ["dataset=folder", f"dataset.root={videos}", "trainer.max_steps=1", "run_dir=run", *SMALL]
    assert train.main([*data, "backbone.weights=vcop.pt"]) == 0
    total = sum(not name.endswith("num_batches_tracked") for name in state)
    words = f"{total} of {total} tensors loaded; 0 missing, 1 unexpected (fc8.weight)"
    assert f"backbone.weights=vcop.pt: {words}" in capsys.readouterr().out


# --- what the command line must say -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_the_file_does_not_say_must_be_given(videos: Path, torchvision_file: Path, capsys: Printed) -> None:
    message = refused(capsys, command(videos, torchvision_file))
    assert "was not written by a run of ours and does not say what it was trained as" in message
    assert "add backbone= input_transform= num_frames= frame_stride=" in message
    assert "\n  backbone=r3d_18 input_transform=torchvision_r3d num_frames=16 frame_stride=2\n" in message
    assert message.count("backbone=") == 2
    message = refused(capsys, command(videos, torchvision_file, "backbone=r3d_18", "num_frames=4"))
    assert "add input_transform= frame_stride=. Another input than the weights have seen" in message


@pytest.mark.slow
def test_tensors_that_fit_no_backbone_of_ours(videos: Path, capsys: Printed) -> None:
    torch.save({"model": {"a.weight": torch.zeros(3), "b.weight": torch.zeros(3)}}, "other.pth")
    message = refused(capsys, command(videos, "other.pth"))
    assert "Its tensors (first: a.weight, b.weight) fit none of our backbones." in message
    torch.save({"epoch": 3}, "none.pth")
    assert "Its tensors (first: none) fit none" in refused(capsys, command(videos, "none.pth"))
    torch.save([torch.zeros(3)], "list.pth")
    assert "checkpoint=list.pth holds a list, but it must hold a state dict" in refused(
        capsys, command(videos, "list.pth")
    )


@pytest.mark.slow
def test_another_backbone_than_the_files_is_refused(videos: Path, torchvision_file: Path, capsys: Printed) -> None:
    message = refused(capsys, command(videos, torchvision_file, "backbone=r3d", *INPUT))
    assert f"checkpoint={torchvision_file} has 5 of the 60 tensors of R3D" in message
    assert message.rstrip().endswith("They fit backbone=r3d_18.")


@pytest.mark.slow
def test_weights_of_images(videos: Path, capsys: Printed) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), "resnet18.pth")
    message = refused(capsys, command(videos, "resnet18.pth", *R3D_18))
    assert "they are 2D" in message
    assert "baselines=[inflated]" in message


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("s3d", "slow_r50", "c3d", "r2plus1d", "vjepa2_l")]


@pytest.mark.parametrize("name", ["mc3_18", "videomae_b", *LARGE])
def test_the_backbone_is_found_by_its_tensors(name: str) -> None:
    with torch.device("meta"):
        backbone = instantiate(OmegaConf.load(REPOSITORY / "conf" / "backbone" / f"{name}.yaml"))
    state: dict[str, Tensor] = {}
    for own, tensor in backbone.state_dict().items():
        state[next(iter(backbone.other_names(own)), own.removeprefix("network."))] = tensor
    assert fitting_backbones(state)[0] == name


@pytest.mark.parametrize("name", list(PUBLISHED_INPUTS))
def test_published_inputs_compose_and_say_all_that_is_needed(name: str) -> None:
    words = [f"backbone={name}", *PUBLISHED_INPUTS[name].split()]
    assert {word.split("=")[0] for word in words} == set(NEEDED)
    compose_checked("evaluate", ["checkpoint=random", *words], provided=PROVIDED, settings=EvaluateSettings)


PRESETS = {
    "r3d_18": "R3D_18_Weights",
    "mc3_18": "MC3_18_Weights",
    "r2plus1d_18": "R2Plus1D_18_Weights",
    "s3d": "S3D_Weights",
    "mvit_v2_s": "MViT_V2_S_Weights",
    "swin3d_t": "Swin3D_T_Weights",
}


@pytest.mark.parametrize("name", list(PRESETS))
def test_torchvisions_inputs_are_torchvisions(name: str) -> None:
    """The transform that comes with the published weights, of which nothing is downloaded."""
    theirs = getattr(video, PRESETS[name]).KINETICS400_V1.transforms()
    words = dict(word.split("=") for word in PUBLISHED_INPUTS[name].split())
    folder = REPOSITORY / "conf" / "input_transform"
    ours = instantiate(OmegaConf.load(folder / f"{words['input_transform']}.yaml"), _convert_="all")
    frames = torch.randint(0, 256, (2, 150, 200, 3), dtype=torch.uint8)
    torch.testing.assert_close(ours(frames[None])[0], theirs(frames.permute(0, 3, 1, 2)))


# --- what is not data, and what is only a path ------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("name", ["evil.pth", "evil.pyth", "evil.bin", "evil.safetensors"])
@pytest.mark.parametrize("kind", ["archive", "old", "pickle0", "pickle2", "pickle5"])
def test_code_in_a_file_is_refused_and_not_run(videos: Path, capsys: Printed, name: str, kind: str) -> None:
    content = {"state_dict": {"fc.weight": torch.zeros(2)}, "extra": Evil()}
    if kind.startswith("pickle"):
        Path(name).write_bytes(pickle.dumps(Evil(), protocol=int(kind[-1])))
    else:
        torch.save(content, name, _use_new_zipfile_serialization=kind == "archive")
    message = refused(capsys, command(videos, name, *R3D_18))
    if name.endswith("safetensors"):
        assert "is truncated or not a safetensors file" in message
    elif kind == "pickle5":
        assert f"checkpoint={name} is truncated or not a checkpoint (a bare pickle, which could run code" in message
    else:
        assert f"checkpoint={name} holds more than tensors and plain data" in message
        assert "(it names posix.system)" in message
        assert "weights_only" not in message, "what torch says at length: how to run it all the same"
    assert not Path("executed").exists()
    if name == "evil.pth" and kind in ("archive", "old"):  # the control
        torch.load(name, weights_only=False)
        assert Path("executed").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_truncated_files(videos: Path, capsys: Printed, name: str, share: float) -> None:
    state = {"fc.weight": torch.randn(100, 30)}
    if name.endswith(".pth"):
        torch.save(state, name)
    else:
        save_file(state, name)
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: int(share * len(content))])
    message = refused(capsys, command(videos, name, *R3D_18))
    assert (
        f"checkpoint={name} is truncated or not a {'checkpoint' if name == 'a.pth' else 'safetensors file'}" in message
    )


def test_a_changed_file_is_refused(videos: Path, capsys: Printed) -> None:
    """One bit of a tensor, which torch alone would load as another number."""
    torch.save({"fc.weight": torch.randn(100, 30)}, "a.pth")
    content = bytearray(Path("a.pth").read_bytes())
    content[len(content) // 2] ^= 1
    Path("a.pth").write_bytes(content)
    assert "checkpoint=a.pth is damaged: the checksum of" in refused(capsys, command(videos, "a.pth", *R3D_18))


PATHS = [
    "a b;$(touch executed)`touch executed`|&<>*?.pth",
    'it\'s 100 % "mine".pth',
    "a,b.pth",
    "[a].pth",
    "{a: b}.pth",
    "${oc.env:HOME}.pth",
    "\\${oc.env:HOME}.pth",
    "a=b.pth",
    "back\\slash\\'.pth",
    "end\\",
    "ünï#cödé—!~^.pth",
]


@pytest.mark.parametrize("name", [PATHS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PATHS[1:])])
def test_a_path_is_only_a_path(torchvision_file: Path, name: str) -> None:
    shutil.copy(torchvision_file, name)
    words = complete_overrides([f"checkpoint={name}", *R3D_18])
    config = compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)
    assert config.checkpoint == name
    assert not Path("executed").exists()


@pytest.mark.slow
def test_a_path_of_odd_signs_is_evaluated(videos: Path, torchvision_file: Path) -> None:
    name = PATHS[0]
    shutil.copy(torchvision_file, name)
    assert evaluate.main(command(videos, name, *R3D_18, "baselines=[]", "run_dir=a")) == 0
    assert result("a")["checkpoint"] == f"{name} sha256:{file_digest(torchvision_file)}"
    assert not Path("executed").exists()
