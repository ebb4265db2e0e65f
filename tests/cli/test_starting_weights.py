"""``backbone.weights=`` from the command line: only the backbone learns of it, and nobody needs the file afterwards."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_video.cli import evaluate, train
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, StartingWeights
from ssl_video.utils.checkpoint import read_backbone, read_checkpoint
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import read_config
from support.folders import SMALL, labelled_folder, read_metrics
from support.methods import compose_train

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
# Steps that change nothing but the statistics of batch norm.
STILL = ["optimizer=sgd", "scheduler=constant", "optimizer.lr=0"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"))


def command(videos: Path, *overrides: str) -> list[str]:
    labels = f"dataset.labels={videos / 'labels.csv'}"
    return ["dataset=folder", f"dataset.root={videos}", labels, "checkpoint_every_steps=1", *SMALL, *overrides]


def weights_of(run: str) -> dict[str, Tensor]:
    """A run's backbone, without the statistics that every batch changes."""
    return learnt(read_backbone(Path(run) / "checkpoints" / "backbone.safetensors")[0])


def learnt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if "running_" not in name and "num_batches" not in name}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics_without_measured(folder: str) -> dict[str, Any]:
    content = json.loads((Path(folder) / "metrics.json").read_text())
    return {key: value for key, value in content.items() if key not in ("seconds", "peak_memory_bytes")}


@pytest.mark.slow
def test_a_run_starts_from_another_ones_backbone(videos: Path, capsys: Printed) -> None:
    assert train.main(command(videos, "trainer.max_steps=1", "run_dir=first", "seed=1")) == 0
    assert train.main(command(videos, "trainer.max_steps=1", "run_dir=control", "seed=2", *STILL)) == 0
    file = "first/checkpoints/backbone.safetensors"
    capsys.readouterr()
    started = command(videos, "run_dir=second", "seed=2", *STILL, f"backbone.weights={file}")
    assert train.main([*started, "trainer.max_steps=1"]) == 0
    printed = capsys.readouterr().out
    total = len([name for name in read_backbone(Path(file))[0] if not name.endswith("num_batches_tracked")])
    assert f"backbone.weights={file}: {total} of {total} tensors loaded; 0 missing, 0 unexpected" in printed
    assert equal(weights_of("second"), weights_of("first"))
    assert not equal(weights_of("control"), weights_of("first"))
    # The momentum copy was made of the loaded backbone; projector and queue are those of the seed.
    second, control = (
        read_checkpoint(Path(run) / "checkpoints/last.ckpt")["state_dict"] for run in ("second", "control")
    )
    assert any(
        torch.equal(tensor, second["backbone.stem.0.weight"]) and not name.startswith("backbone.")
        for name, tensor in second.items()
    )
    projectors = [{n: t for n, t in learnt(state).items() if n.startswith("projector.")} for state in (second, control)]
    assert projectors[0]
    assert equal(*projectors)
    assert read_config(Path("second"))["backbone"]["weights"] == file

    # Evaluating and going on need the file no more.
    own = read_checkpoint(Path("second/checkpoints/last.ckpt"))["backbone_config"]["backbone"]
    assert set(StartingWeights.__annotations__) == {"weights", "inflate"}
    assert own.keys() & StartingWeights.__annotations__ == set()
    assert "weights" not in read_backbone(Path("second/checkpoints/backbone.safetensors"))[1]["backbone"]
    shutil.rmtree("first")
    small = ["num_frames=4", "dataset.num_workers=0", "evaluation.num_clips=2"]
    assert evaluate.main(["checkpoint=second", *small, "run_dir=result"]) == 0
    assert evaluate.main(["checkpoint=control", *small, "run_dir=other"]) == 0
    # Random means random, whatever training started from.
    result, other = metrics_without_measured("result"), metrics_without_measured("other")
    assert result["baselines"] == other["baselines"]
    assert train.main(["resume=second", "trainer.max_steps=2"]) == 0
    assert [int(row["step"]) for row in read_metrics(Path("second"))] == [0, 1]


def test_faults_are_told_before_the_first_step(videos: Path, capsys: Printed) -> None:
    Path("broken.pth").write_bytes(b"broken")
    for override, words in {
        "backbone.weights=broken.pth": "is truncated or not a checkpoint",
        "backbone.inflate=true": "backbone.inflate=True needs 2D weights to inflate; give backbone.weights=PATH",
    }.items():
        assert train.main(command(videos, "run_dir=a", override)) == 2
        assert words in capsys.readouterr().err
    assert not Path("a").exists()


def test_every_backbone_has_the_two_keys() -> None:
    """Also one that an experiment chooses, or that is chosen in its place; wrong keys and values are found."""
    for overrides in (["backbone=c3d"], ["experiment=vcop_r3d_ucf101"], ["method=vcop", "backbone=caffenet"]):
        config = compose_train(*overrides, "backbone.weights=a.pth", "backbone.inflate=mean")
        assert (config.backbone.weights, config.backbone.inflate) == ("a.pth", "mean")
    config = compose_train("method=vcop")
    assert (config.backbone.weights, config.backbone.inflate) == (None, False)
    for override, words in {
        "backbone.inflate=middle": "backbone.inflate='middle': Input should be True, False, 'centre' or 'mean'",
        "backbone.weights=[a,b]": "backbone.weights=['a', 'b']: Input should be a valid string",
        "backbone.weight=a.pth": "there is no key 'backbone.weight'; did you mean 'backbone.weights'?",
        "+backbone.weigths=a.pth": "has no argument 'weigths'",
    }.items():
        with pytest.raises(InputError, match=re.escape(words)):
            compose_train(override)


def test_evaluation_has_neither_key() -> None:
    """The random row must not depend on them."""
    with pytest.raises(InputError, match=r"there is no key 'backbone\.weights'"):
        compose_checked(
            "evaluate",
            ["checkpoint=random", "backbone.weights=a.pth"],
            provided=PROVIDED,
            settings=EvaluateSettings,
        )
