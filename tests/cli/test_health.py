"""Health and online kNN through the command line: what is measured, told and ended, and that training is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_video.cli.health import drawn, drawn_units
from ssl_video.cli.train import main
from ssl_video.utils.checkpoint import read_checkpoint
from support.folders import SMALL, labelled_folder, numbered_folder, read_metrics, run_command

pytestmark = pytest.mark.usefixtures("own_folder")

HEALTH = "callbacks.health"
KNN = ["callbacks=[online_knn]"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=16)


def command(videos: Path, *overrides: str) -> list[str]:
    labels = f"dataset.labels={videos / 'labels.csv'}"
    return ["dataset=folder", f"dataset.root={videos}", labels, *SMALL, *overrides]


def weights(run_dir: str) -> dict[str, Any]:
    content: dict[str, Any] = read_checkpoint(Path(run_dir) / "checkpoints" / "last.ckpt")
    return content["state_dict"]


def test_training_is_the_same_with_and_without_being_watched(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = command(videos, "trainer.max_steps=3")
    assert main([*own, "run_dir=plain", "callbacks=none"]) == 0
    watched = ["callbacks=[health,online_knn]", f"{HEALTH}.every_steps=2", "callbacks.online_knn.every_steps=2"]
    assert main([*own, "run_dir=watched", *watched]) == 0
    plain, same = weights("plain"), weights("watched")
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    rows, plain_rows = read_metrics(Path("watched")), read_metrics(Path("plain"))
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in plain_rows]
    assert not any(name.startswith(("health/", "val/")) for name in plain_rows[0])
    for name in ("health/feature_std", "health/embedding_rankme", "health/queue_noise_share", "val/knn_top1"):
        assert [bool(row[name]) for row in rows] == [False, True, True], name
    assert rows[1]["val/knn_top1_random"] == rows[2]["val/knn_top1_random"]
    assert "neighbours name" in capsys.readouterr().err
    times = (Path("watched") / "times.csv").read_text().splitlines()
    assert "time/clips_per_second" in times[0] and len(times) == 1 + 2
    assert not (Path("plain") / "times.csv").exists()


def test_a_bar_warns_once_and_another_ends_the_run_with_a_checkpoint(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = command(videos, "trainer.max_steps=6", f"{HEALTH}.every_steps=1", "checkpoint_every_steps=100")
    warn = f"+{HEALTH}.bars.health_feature_uniformity={{above: -9}}"
    stop = f"{HEALTH}.bars.health_feature_std={{below: 2, from_step: 3, in_a_row: 2, action: stop}}"
    assert main([*own, "run_dir=a", warn, stop]) == 1
    told = capsys.readouterr().err
    assert told.count("Warning: health/feature_uniformity is") == 1
    assert "The run ends: health/feature_std is" in told and "after step 4, below the bar of 2." in told
    assert "Traceback" not in told
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 4
    assert len(read_metrics(Path("a"))) == 4


@pytest.mark.slow
def test_a_checkpoint_of_before_is_kept_and_a_resumed_run_is_ended_again(videos: Path) -> None:
    stop = f"{HEALTH}.bars.health_feature_std={{below: 2, from_step: 3, in_a_row: 1, action: stop}}"
    own = command(videos, "trainer.max_steps=6", f"{HEALTH}.every_steps=1", "checkpoint_every_steps=2", stop)
    assert main([*own, "run_dir=a"]) == 1
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 2
    assert main(["resume=a"]) == 1
    assert main(["resume=a", "callbacks=none"]) == 0


@pytest.mark.slow
def test_values_after_a_resume_are_those_of_a_run_that_was_not_stopped(videos: Path) -> None:
    """The window of features and the random network's value go on; what the machine took does not."""
    watched = ["callbacks=[health,online_knn]", f"{HEALTH}.every_steps=2", "callbacks.online_knn.every_steps=2"]
    constant = ["optimizer=sgd", "scheduler=constant", "method.momentum_schedule=constant"]
    own = command(videos, *constant, "optimizer.lr=0.01", *watched)
    assert main([*own, "trainer.max_steps=6", "run_dir=whole"]) == 0
    assert main([*own, "trainer.max_steps=3", "run_dir=part"]) == 0
    assert main(["resume=part", "trainer.max_steps=6"]) == 0
    whole, part = read_metrics(Path("whole")), read_metrics(Path("part"))
    assert [row for row in part if row["step"] != "2"] == [row for row in whole if row["step"] != "2"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([f"+{HEALTH}.bars.health_features={{below: 1}}"], "there is no such value"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [
                ([f"{HEALTH}.every_steps=0"], "every_steps=0 must be at least 1"),
                ([*KNN, "+callbacks.online_knn.max_bank_video=3"], "did you mean 'max_bank_videos'?"),
                ([*KNN, "callbacks.online_knn.root=/somewhere"], "go with callbacks.online_knn.dataset=NAME"),
                ([*KNN, "callbacks.online_knn.dataset=ucf1001"], "there is no dataset=ucf1001"),
                ([*KNN, "callbacks.online_knn.label=colour"], "dataset.label='colour' is not a label column"),
            ]
        ),
    ],
)
def test_what_is_refused(videos: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], told: str) -> None:
    assert main(command(videos, "trainer.max_steps=1", "run_dir=a", *overrides)) == 2
    assert told in capsys.readouterr().err


def test_neighbours_need_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = numbered_folder(tmp_path / "unlabelled", videos=6)
    assert main(["dataset=folder", f"dataset.root={unlabelled}", *SMALL, "run_dir=a", *KNN]) == 2
    assert "callbacks.online_knn needs labelled videos of 2 classes" in capsys.readouterr().err


@pytest.mark.slow
def test_another_data_set_can_be_asked(videos: Path, tmp_path: Path) -> None:
    """Trained on a folder without labels; the labelled one is asked, by its own test part never."""
    unlabelled = numbered_folder(tmp_path / "unlabelled", videos=8)
    named = ("dataset=folder", f"root={videos}", f"labels={videos / 'labels.csv'}")
    knn = [*KNN, *(f"callbacks.online_knn.{key}" for key in named)]
    words = ["dataset=folder", f"dataset.root={unlabelled}", *SMALL, *knn]
    assert main([*words, "trainer.max_steps=2", "run_dir=a"]) == 0
    assert 0 <= float(read_metrics(Path("a"))[-1]["val/knn_top1"]) <= 1


def test_units_are_drawn_whole_and_never_all() -> None:
    units = np.repeat(np.arange(10), 4)
    chosen = drawn_units(units, 0.3)
    assert chosen.sum() == 12 and len({*units[chosen]} & {*units[~chosen]}) == 0
    assert drawn_units(np.array([0, 1]), 0.99).sum() == 1
    assert drawn_units(units, 0.001).sum() == 4
    rows = np.arange(100, 150)
    some = drawn(rows, 7)
    assert len(some) == 7 and (np.diff(some) > 0).all() and set(some) <= set(rows)
    assert drawn(rows, 50) is rows


@pytest.mark.slow
def test_two_processes_measure_and_end_together(videos: Path, tmp_path: Path) -> None:
    """Started as a user does; accumulated gradients too."""
    two = ["strategy=ddp_cpu", "trainer.devices=2", "trainer.accumulate_grad_batches=2", "batch_size=2"]
    watched = ["callbacks=[health,online_knn]", f"{HEALTH}.every_steps=2", "callbacks.online_knn.every_steps=2"]
    own = command(videos, "trainer.max_steps=4", *two, *watched)
    code, told = run_command("train.py", [*own, "run_dir=a"], folder=tmp_path)
    assert code == 0, told
    rows = read_metrics(tmp_path / "a")
    assert [bool(row["health/feature_std"]) for row in rows] == [False, True, False, True]
    assert [bool(row["val/knn_top1"]) for row in rows] == [False, True, False, True]
    assert told.count("neighbours name") == 2
    stop = f"{HEALTH}.bars.health_feature_std={{below: 2, from_step: 1, in_a_row: 1, action: stop}}"
    code, told = run_command("train.py", [*own, "run_dir=b", stop], folder=tmp_path)
    assert code == 1, told
    assert told.count("The run ends: health/feature_std is") == 1
    assert read_checkpoint(tmp_path / "b/checkpoints/last.ckpt")["global_step"] == 2


def test_online_knn_of_a_sharded_network_is_refused(
    videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = command(videos, "callbacks=[online_knn]", "strategy=fsdp", "optimizer=adamw", "trainer.devices=2")
    assert main([*small, "run_dir=sharded"]) == 2
    assert "no process can where the network is sharded" in capsys.readouterr().err
