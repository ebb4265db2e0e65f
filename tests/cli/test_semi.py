"""Semi-supervised training from the command line: a share of the labels, a list of them, a stage without any."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.cli import evaluate, train
from ssl_video.utils.checkpoint import read_backbone, read_checkpoint
from support.folders import labelled_folder, read_metrics, run_command

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
FAST = ("method=tcl", "dataset=folder", "batch_size=2", "dataset.num_workers=0", "transform.size=16")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=24)


def command(videos: Path, *overrides: str, steps: int = 8) -> list[str]:
    own = [f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}", "dataset.test_groups=[4]"]
    return [*FAST, *own, "label_fraction=0.3", f"trainer.max_steps={steps}", *overrides]


def record(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return content


def test_a_run_and_its_evaluation(videos: Path, capsys: Printed) -> None:
    assert train.main(command(videos, "run_dir=a", "method.threshold=0.0")) == 0
    told = record("a")
    assert told["finished"] and told["used"] == 20
    assert (told["split_family"], told["label_fraction"], told["label_seed"]) == ("class", 0.3, 0)
    assert (told["labeled"], told["unlabeled"]) == (6, 14)  # of 10 in each class the floor of 7 is hidden
    assert told["decoded_frames"] == 8 * (2 * 8 + 6 * 12)
    assert "6 with labels (split: class)" in capsys.readouterr().out
    rows = read_metrics(Path("a"))
    assert [int(row["epoch"]) for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]  # 14 unlabelled videos are 2 batches of 6
    on = [{name for name in ("sup", "instance", "pseudo") if float(row[f"train/{name}"]) > 0} for row in rows]
    assert on == [{"sup"}, *[{"sup", "instance"}] * 6, {"sup", "pseudo"}]
    assert [row["train/mean_conf"] == "nan" for row in rows] == [True, *[False] * 7]
    assert all(0 <= float(row["train/pseudo_acc"]) <= 1 for row in rows[1:])
    assert evaluate.main(["checkpoint=a", "evaluation=knn", "batch_size=4", "baselines=[]"]) == 0
    assert json.loads(next(Path("a").rglob("metrics.json")).read_text())["videos"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resume_is_exact(videos: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops in each of the three phases, in the middle and at the end of an epoch."""
    small = command(videos, "checkpoint_every_steps=1", "method.threshold=0.0")
    assert train.main([*small, "run_dir=whole"]) == 0
    original = SaveCheckpoint.on_train_batch_end

    def killed(self: SaveCheckpoint, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == stop:
            raise RuntimeError("killed by the test")

    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoint, "on_train_batch_end", killed)
        assert train.main([*small, "run_dir=part"]) == 1
    assert train.main(["resume=part"]) == 0
    assert read_metrics(Path("part")) == read_metrics(Path("whole"))
    whole, part = (read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")["state_dict"] for run in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


@pytest.mark.slow
def test_going_on_with_another_share_is_refused(videos: Path, capsys: Printed) -> None:
    assert train.main(command(videos, "run_dir=a", steps=2)) == 0
    assert train.main(["resume=a", "label_fraction=0.5", "trainer.max_steps=4"]) == 2
    assert "label_fraction, label_seed or label_split_file has changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_list_of_labelled_videos(videos: Path, tmp_path: Path) -> None:
    names = [0, 1, 2, 3]
    (tmp_path / "list.txt").write_text("".join(f"video_{n:02d}.avi*{n % 2}\n" for n in names))
    assert train.main(command(videos, "label_split_file=list.txt", "run_dir=a", steps=1)) == 0
    assert record("a")["split_family"] == "file:list.txt"
    assert record("a")["labeled"] == 4


@pytest.mark.slow
def test_a_stage_without_labels_and_the_one_after(videos: Path) -> None:
    bare = [text for text in command(videos, "run_dir=a", steps=2) if "labels" not in text and "groups" not in text]
    assert train.main([*bare, "method.stage=pretrain"]) == 0
    rows = read_metrics(Path("a"))
    assert all(float(row["train/loss"]) == float(row["train/instance"]) > 0 for row in rows)
    assert (record("a")["labeled"], record("a")["unlabeled"], record("a")["split_family"]) == (0, 24, "none")
    weights = "a/checkpoints/backbone.safetensors"
    assert train.main(command(videos, "run_dir=b", f"backbone.weights={weights}", "optimizer.lr=0.0", steps=1)) == 0
    before, after = (read_backbone(Path(run) / "checkpoints/backbone.safetensors")[0] for run in ("a", "b"))
    assert torch.equal(before["stem.0.weight"], after["stem.0.weight"])


@pytest.mark.slow
def test_refusals(videos: Path, capsys: Printed) -> None:
    def refused(*overrides: str) -> str:
        assert train.main(list(overrides)) == 2
        return capsys.readouterr().err

    assert "there is no key 'label_fraction'" in refused("method=moco", "label_fraction=0.1")
    bare = [text for text in command(videos) if "labels" not in text and "groups" not in text]
    assert "method.stage=pretrain" in refused(*bare)
    assert "label_fraction=1.5 must lie between 0 and 1" in refused(*command(videos), "label_fraction=1.5")
    assert "semi.label_fraction='some'" in refused(*command(videos), "label_fraction=some")
    assert "TCL takes the unlabelled views ['fast', 'slow']" in refused(*command(videos)[:-2], "semi=none")
    foreign = [text for text in command(videos) if not text.startswith(("method", "transform"))]
    assert "MoCo takes no unlabelled views" in refused(*foreign, "method=moco", "semi=fast_slow")
    assert refused("label_fraction=0.1", "method=tcl", "optimizer.lrr=1").startswith("1 fault")
    assert "takes 24 labelled videos, but folder has 6" in refused(*command(videos), "batch_size=24")
    assert "sampler.num_views=2; TCL takes 1 clip" in refused(*command(videos), "sampler.num_views=2")


@pytest.mark.slow
def test_two_processes_train_as_one_run(videos: Path) -> None:
    """Each rank takes its part of every global batch; epochs are as long as the data allow for both together."""
    halves = ("label_fraction=0.5", "semi.unlabeled_ratio=1")  # 10 videos each, two batches of 4
    two = ("strategy=ddp_cpu", "trainer.devices=2")
    arguments = command(videos, "run_dir=a", "batch_size=2", *two, *halves, steps=6)
    code, printed = run_command("train.py", arguments, folder=Path())
    assert code == 0, printed
    rows = read_metrics(Path("a"))
    assert [int(row["step"]) for row in rows] == list(range(6))
    assert [int(row["epoch"]) for row in rows] == [0, 0, 1, 1, 2, 2]
