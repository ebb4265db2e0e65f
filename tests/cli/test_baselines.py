"""The rows beside a result: image weights inflated in time, and a supervised run; what may not stand beside it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_video.backbones.r3d import R3D
from ssl_video.cli import evaluate, train
from ssl_video.cli.baselines import SUPERVISED, baseline_files, build_backbones
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, TrainSettings
from ssl_video.cli.weights import complete_overrides
from ssl_video.hub.weights import read_weights
from ssl_video.utils.checkpoint import file_digest, read_backbone
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from support.folders import SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

# A short supervised run of the input that the tests' checkpoint has.
SHORT = ("batch_size=4", "dataset.num_workers=0", "trainer.max_steps=2")
TINY = ("num_frames=4", "dataset.num_workers=0", "evaluation.num_clips=2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos under labels that they do not show, so that no metric is 1 whatever the features."""
    root = labelled_folder(tmp_path_factory.mktemp("labelled"))
    names = sorted(file.name for file in root.glob("*.mp4"))
    rows = [f"{name},class_{number % 3},{number // 4}" for number, name in enumerate(names)]
    (root / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained run, the one that is asked about."""
    path = tmp_path_factory.mktemp("pretrained") / "run"
    assert train.main([*data(videos), *SMALL, "trainer.max_steps=1", "seed=5", f"run_dir={path}"]) == 0
    return path


def data(videos: Path) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]


def built(*overrides: str, choices: dict[str, str] | None = None) -> dict[str, nn.Module]:
    config = compose_checked(
        "evaluate", complete_overrides(list(overrides)), provided=PROVIDED, settings=EvaluateSettings
    )
    weights = read_weights(config.checkpoint)
    return dict(build_backbones(config, weights, choices=choices or {"backbone": "r3d_tiny", "dataset": "folder"}))


def flat_weights(path: Path) -> dict[str, Tensor]:
    """The file of a 2D network that r3d_tiny inflates: its kernels' first two and last two dimensions."""
    torch.manual_seed(3)
    state = R3D(widths=[12, 24, 48, 96], stem_kernel=[3, 3, 3]).state_dict()
    flat = {name: tensor[:, :, 0].clone() if tensor.ndim == 5 else tensor for name, tensor in state.items()}
    save_file(flat, path)
    return flat


def refusal(*overrides: str, choices: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as fault:
        built(*overrides, choices=choices)
    return str(fault.value)


# --- inflated ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inflated_has_the_image_weights_in_the_middle_of_its_kernels(run: Path, capsys: Any) -> None:
    flat = flat_weights(Path("image.safetensors"))
    backbones = built(f"checkpoint={run}", "baselines=[random,inflated]", "image_weights=image.safetensors")
    assert list(backbones) == ["checkpoint", "random", "inflated"]
    state = backbones["inflated"].state_dict()
    for name, tensor in flat.items():
        own = state[name]
        if own.ndim == 5:
            torch.testing.assert_close(own[:, :, own.shape[2] // 2], tensor)
            assert own.abs().sum() == pytest.approx(tensor.abs().sum().item(), rel=1e-5)
        else:
            torch.testing.assert_close(own, tensor)
    assert "image_weights=image.safetensors:" in (printed := capsys.readouterr().out)
    assert "inflated" in printed


def test_inflated_needs_its_file(run: Path) -> None:
    message = refusal(f"checkpoint={run}", "baselines=[inflated]")
    assert "baselines=[inflated] needs image_weights=PATH" in message


def test_image_weights_that_do_not_fit_are_refused(run: Path) -> None:
    save_file({"fc.weight": torch.zeros(2, 3)}, "other.safetensors")
    words = [f"checkpoint={run}", "baselines=[inflated]"]
    message = refusal(*words, "image_weights=other.safetensors")
    assert "image_weights=other.safetensors has 0 of the" in message
    assert "backbone.weights" not in message
    assert "image_weights=gone.pth does not exist" in refusal(*words, "image_weights=gone.pth")
    same = run / "checkpoints" / "backbone.safetensors"
    assert "those of a 3D network already" in refusal(*words, f"image_weights={same}")


# --- supervised -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supervised(videos: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run, by the very command that a refusal gives."""
    command = refusal(f"checkpoint={run}", "baselines=[supervised]").splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:2] == ["python", "train.py"]
    path = tmp_path_factory.mktemp("supervised") / "run"
    assert train.main([*words[2:], *SHORT, "seed=6", f"run_dir={path}"]) == 0
    return path


def test_without_a_run_the_command_that_trains_one_is_given(run: Path, videos: Path) -> None:
    message = refusal(f"checkpoint={run}", "baselines=[supervised]")
    assert "baselines=[supervised] needs supervised_checkpoint=RUN" in message
    words = shlex.split(message.splitlines()[-1])
    assert words[:5] == ["python", "train.py", "method=supervised", "backbone=r3d_tiny", "dataset=folder"]
    assert f"dataset.root={videos}" in words
    # What the presets have already is not said again.
    assert "sampler.num_frames=4" in words
    assert not any(word.startswith(("sampler.frame_stride", "transform.", "input_transform.")) for word in words)


def test_the_command_has_every_change_of_the_evaluation(videos: Path) -> None:
    changes = [
        "backbone.widths=[8,8,16,24]",
        *("dataset.split_seed=4", "dataset.test_groups=['a b','2']"),
        *("input_transform.mean=[0.1,0.2,0.3]", "input_transform.crop=24", "input_transform.resize=[28,37]"),
        *("num_frames=16", "frame_stride=4"),
    ]
    words = ["checkpoint=random", "baselines=[supervised]", "backbone=r3d_tiny", *data(videos), *changes]
    given = shlex.split(refusal(*words, choices={"backbone": "r3d_tiny", "dataset": "folder"}).splitlines()[-1])
    config = compose_checked("train", given[2:], provided=PROVIDED, settings=TrainSettings)
    assert config.method._target_ == SUPERVISED
    assert config.backbone.widths == [8, 8, 16, 24]
    assert (config.dataset.root, config.dataset.labels) == (str(videos), str(videos / "labels.csv"))
    assert (config.dataset.split_seed, config.dataset.test_groups) == (4, ["a b", "2"])
    assert config.input_transform.mean == config.transform.mean == [0.1, 0.2, 0.3]
    assert (config.input_transform.crop, config.input_transform.resize) == (24, [28, 37])
    assert config.transform.size == 24
    assert (config.sampler.num_frames, config.sampler.frame_stride) == (16, 4)


def test_a_run_by_that_command_stands_beside(run: Path, supervised: Path) -> None:
    backbones = built(f"checkpoint={run}", "baselines=[random,supervised]", f"supervised_checkpoint={supervised}")
    assert list(backbones) == ["checkpoint", "random", "supervised"]
    state, config = read_backbone(supervised / "checkpoints" / "backbone.safetensors")
    assert config["seed"] == 6
    own = backbones["supervised"].state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert any(not torch.equal(backbones["random"].state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("+backbone.widths=[8,8,16,24]", "backbone.widths=[12,24,48,96] in it, [8,8,16,24] here"),
        ("backbone=c3d_small", "backbone._target_=ssl_video.backbones.r3d.R3D in it, ssl_video.backbones.c3d.C3D here"),
        ("input_transform.mean=[0,0,0]", "input_transform.mean=[0.45,0.45,0.45] in it, [0,0,0] here"),
        ("dataset.split_seed=3", "dataset.split_seed=0 in it, 3 here: it may have learnt the labels of test videos"),
    ],
)
def test_a_run_of_another_kind_is_refused(run: Path, supervised: Path, override: str, difference: str) -> None:
    override = override.lstrip("+")
    words = [f"checkpoint={run}" if "backbone" not in override else "checkpoint=random", "baselines=[supervised]"]
    words += [f"supervised_checkpoint={supervised}", override]
    message = refusal(*words)
    assert f"supervised_checkpoint={supervised} cannot stand beside this checkpoint" in message
    assert difference in message
    assert "python train.py method=supervised backbone=r3d_tiny" in message


def test_another_crop_or_data_set_is_no_fault(run: Path, supervised: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={run}", "baselines=[supervised]", f"supervised_checkpoint={supervised}"]
    assert "supervised" in built(*words, "input_transform.crop=16")
    # Its labels were those of other videos.
    assert "supervised" in built(*words, f"dataset.root={tmp_path}", "dataset.split_seed=3")


@pytest.mark.slow
def test_what_is_no_supervised_run_is_refused(run: Path, supervised: Path) -> None:
    words = [f"checkpoint={run}", "baselines=[supervised]"]
    message = refusal(*words, f"supervised_checkpoint={run}")
    assert "it is a run of ssl_video.methods.moco.MoCo, not of method=supervised" in message
    for given in (f"{supervised}/checkpoints/last.ckpt", "gone", "."):
        message = refusal(*words, f"supervised_checkpoint={given}")
        assert f"supervised_checkpoint={given} must be the folder of a run that has a checkpoint" in message
        assert "python train.py method=supervised" in message


# --- from the command line --------------------------------------------------------------------------------------------


def test_all_rows_from_one_command(run: Path, supervised: Path) -> None:
    flat_weights(Path("image.safetensors"))
    files = ["image_weights=image.safetensors", f"supervised_checkpoint={supervised}"]
    words = [f"checkpoint={run}", "baselines=[random,inflated,supervised]", *files, *TINY, "evaluation=retrieval"]
    assert evaluate.main([*words, "run_dir=result"]) == 0
    result = json.loads(Path("result/metrics.json").read_text())
    assert list(result["baselines"]) == ["random", "inflated", "supervised"]
    # The supervised row is what its own evaluation gives: same code, same clips.
    assert evaluate.main([f"checkpoint={supervised}", *TINY, "evaluation=retrieval", "run_dir=own"]) == 0
    own = json.loads(Path("own/metrics.json").read_text())
    assert result["baselines"]["supervised"] == own["metrics"]
    values = [row["mean_average_precision"] for row in (result["metrics"], *result["baselines"].values())]
    assert len(set(values)) == len(values)


def test_rows_beside_a_random_network(videos: Path) -> None:
    flat_weights(Path("image.safetensors"))
    words = ["checkpoint=random", *data(videos), "baselines=[random,inflated]", "image_weights=image.safetensors"]
    assert evaluate.main([*words, *TINY, "run_dir=result"]) == 0
    assert list(json.loads(Path("result/metrics.json").read_text())["baselines"]) == ["inflated"]


def test_faults_are_told_with_exit_code_2(run: Path, capsys: Any) -> None:
    assert evaluate.main([f"checkpoint={run}", "baselines=[supervised]", *TINY]) == 2
    assert "python train.py method=supervised backbone=r3d_tiny dataset=folder" in capsys.readouterr().err
    assert evaluate.main([f"checkpoint={run}", "baselines=[imagenet]", *TINY]) == 2
    assert "Input should be 'random', 'inflated' or 'supervised'" in capsys.readouterr().err


def test_each_row_is_named_by_its_file(run: Path, supervised: Path) -> None:
    flat_weights(Path("image.safetensors"))
    words = ["baselines=[random,inflated,supervised]", "image_weights=image.safetensors", "seed=4"]
    config = compose_checked(
        "evaluate",
        complete_overrides([f"checkpoint={run}", *words, f"supervised_checkpoint={supervised}"]),
        provided=PROVIDED,
        settings=EvaluateSettings,
    )
    assert baseline_files(config) == {
        "random": "random seed:4",
        "inflated": f"image.safetensors sha256:{file_digest(Path('image.safetensors'))}",
        "supervised": f"last.ckpt sha256:{file_digest(supervised / 'checkpoints' / 'last.ckpt')}",
    }
