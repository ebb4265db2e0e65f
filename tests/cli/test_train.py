"""Training from the command line: what a run leaves behind, and that an interrupted one goes on exactly."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from ssl_video.cli.train import main
from ssl_video.utils.checkpoint import read_backbone, read_checkpoint
from ssl_video.utils.run import RUN_DIR_VARIABLE
from support.folders import SMALL, labelled_folder, read_metrics, run_command

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=15)


def command(videos: Path, *overrides: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", "checkpoint_every_steps=2", *SMALL, *overrides]


def weights(run_dir: str) -> dict[str, Any]:
    content: dict[str, Any] = read_checkpoint(Path(run_dir) / "checkpoints" / "last.ckpt")
    return content["state_dict"]


def test_a_run_leaves_what_the_design_says(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = f"dataset.labels={videos / 'labels.csv'}"
    assert main(command(videos, "trainer.max_steps=5", "run_dir=a", "seed=3", labels, "dataset.test_groups=[3]")) == 0
    run = Path("a")
    record = json.loads((run / "run.json").read_text())
    assert record["finished"]
    assert record["steps"] == 5
    assert record["used"] == 12
    assert record["decoded_frames"] == 5 * 4 * 2 * 4
    assert {"command", "git_revision", "versions", "device", "threads", "manifest_hash", "seconds"} <= set(record)
    assert pq.read_table(run / "videos.parquet").num_rows == 12
    rows = read_metrics(run)
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [int(row["epoch"]) for row in rows] == [0, 0, 0, 1, 1]  # 12 videos are 3 batches of 4
    assert list(rows[0])[:3] == ["epoch", "step", "train/loss"]
    assert all(float(row["train/loss"]) == float(row["train/info_nce"]) for row in rows)
    state, config = read_backbone(run / "checkpoints" / "backbone.safetensors")
    assert config["name"] == "r3d_tiny"
    assert torch.equal(state["stem.0.weight"], weights("a")["backbone.stem.0.weight"])
    printed = capsys.readouterr().out
    assert "Run folder: a" in printed
    assert "python evaluate.py checkpoint=a evaluation=knn" in printed
    assert RUN_DIR_VARIABLE not in os.environ  # else a command started from here would take this run for its own


# In the middle and at the end of an epoch.
@pytest.mark.parametrize(
    ("stop", "method"),
    [
        (2, "moco"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [(3, "moco"), (4, "moco"), (2, "vcop"), (3, "vcop"), (4, "vcop")]
        ),
    ],
)
def test_resume_is_exact(videos: Path, method: str, stop: int) -> None:
    """Stops in the middle of an epoch (2, 4) and at its end (3); dropout, queue, schedule and data go on bit by bit."""
    own = [f"method={method}", "checkpoint_every_steps=1"]
    small = [text for text in command(videos, *own) if method == "moco" or "queue" not in text]
    if method == "vcop":
        small = [t for t in small if not t.startswith(("transform.", "input_transform."))]
        small += ["transform.resize=[36,36]", "transform.crop=32"]
    assert main([*small, "trainer.max_steps=6", "run_dir=whole"]) == 0
    # Stopping a run of six steps in its middle: the schedule must not notice.
    assert main([*small, "trainer.max_steps=6", "run_dir=cut", "+trainer.limit_train_batches=1.0"]) == 0
    cut = Path("cut")
    checkpoint = cut / "checkpoints" / "last.ckpt"
    assert read_checkpoint(checkpoint)["global_step"] == 6
    _stop_at(small, stop)
    assert read_checkpoint(Path("part/checkpoints/last.ckpt"))["global_step"] == stop
    assert main(["resume=part"]) == 0
    assert read_metrics(Path("part")) == read_metrics(Path("whole"))
    whole, part = weights("whole"), weights("part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def _stop_at(small: list[str], stop: int) -> None:
    """Ends a run of six steps after ``stop``, as a kill right after a checkpoint does."""
    from ssl_video.callbacks.save_checkpoint import SaveCheckpoint

    original = SaveCheckpoint.on_train_batch_end

    def killed(self: SaveCheckpoint, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == stop:
            raise RuntimeError("killed by the test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveCheckpoint, "on_train_batch_end", killed)
        assert main([*small, "trainer.max_steps=6", "run_dir=part"]) == 1


def test_a_control_resumed_from_another_position_differs(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above would notice a position that is wrong by one batch."""
    from ssl_video.data.datamodule import VideoDataModule

    small = command(videos, "checkpoint_every_steps=1")
    assert main([*small, "trainer.max_steps=6", "run_dir=whole"]) == 0
    _stop_at(small, 2)
    original = VideoDataModule.load_state_dict

    def off_by_one(self: VideoDataModule, state: dict[str, Any]) -> None:
        original(self, state | {"consumed_batches": state["consumed_batches"] - 1})

    monkeypatch.setattr(VideoDataModule, "load_state_dict", off_by_one)
    assert main(["resume=part"]) == 0
    assert read_metrics(Path("part")) != read_metrics(Path("whole"))


def test_a_finished_run_is_told_and_a_longer_one_goes_on(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = command(videos, "optimizer=sgd", "scheduler=constant")
    assert main([*small, "trainer.max_steps=3", "run_dir=a"]) == 0
    assert main(["resume=a"]) == 0
    assert "a is finished: nothing to do." in capsys.readouterr().out
    assert main(["resume=a", "trainer.max_steps=5"]) == 0
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_resume_auto_takes_the_newest_run_with_an_equal_configuration(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = command(videos, "trainer.max_steps=2", "resume=auto")
    assert main(small) == 0
    assert "nothing to resume, starting" in capsys.readouterr().out
    assert main(small) == 0
    printed = capsys.readouterr().out
    assert "going on with outputs/moco_r3d_tiny_folder/" in printed
    assert "is finished" in printed
    assert main([*small, "seed=1"]) == 0
    assert "nothing to resume, starting" in capsys.readouterr().out
    assert len(list(Path("outputs/moco_r3d_tiny_folder").iterdir())) == 2


def test_epochs_end_a_run(videos: Path) -> None:
    assert main(command(videos, "trainer.max_epochs=2", "run_dir=a")) == 0
    assert [int(row["epoch"]) for row in read_metrics(Path("a"))] == [0, 0, 0, 1, 1, 1]


def test_accumulated_batches_are_one_row_and_one_step(videos: Path) -> None:
    assert main(command(videos, "trainer.max_steps=2", "trainer.accumulate_grad_batches=2", "run_dir=a")) == 0
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1]


@pytest.mark.slow
def test_seed_decides_the_run(videos: Path) -> None:
    for run_dir, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(command(videos, "trainer.max_steps=2", f"run_dir={run_dir}", f"seed={seed}")) == 0
    assert read_metrics(Path("a")) == read_metrics(Path("b"))
    assert read_metrics(Path("a")) != read_metrics(Path("c"))


@pytest.mark.slow
def test_other_readers_train_too(videos: Path) -> None:
    assert main(command(videos, "trainer.max_steps=2", "run_dir=a", "reader=pyav")) == 0


@pytest.mark.slow
def test_tensorboard_is_written(videos: Path) -> None:
    assert main(command(videos, "trainer.max_steps=2", "run_dir=a", "logger=tensorboard")) == 0
    assert list(Path("a").rglob("events.out.tfevents.*"))
    assert len(read_metrics(Path("a"))) == 2


@pytest.mark.slow
def test_two_processes_train_as_one_run(videos: Path) -> None:
    """Started as a user does: the ranks share one folder, one metrics.csv and one number of steps per epoch."""
    arguments = command(videos, "trainer.max_epochs=2", "run_dir=a", "strategy=ddp_cpu", "trainer.devices=2")
    code, printed = run_command("train.py", arguments, folder=Path())
    assert code == 0, printed
    rows = read_metrics(Path("a"))
    assert [int(row["step"]) for row in rows] == [0, 1]  # 15 videos are one global batch of 8 an epoch
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    state = weights("a")
    assert int(state["queue.pushed"]) == 2 * 8 * 2
