"""A loss that is NaN or infinite stops the run or is skipped, and the videos of its batch are written down."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.callbacks import bad_loss
from ssl_video.cli.train import main
from ssl_video.modules.feature_queue import FeatureQueue
from ssl_video.utils.checkpoint import read_checkpoint
from support.faults import Poison
from support.folders import SMALL, labelled_folder, read_metrics

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=15)


def run(videos: Path, *overrides: str, steps: str) -> int:
    poison = f"+callbacks.fault._target_={Poison.__module__}.Poison", "+callbacks.fault.rank=0"
    settings = ["dataset=folder", f"dataset.root={videos}", "checkpoint_every_steps=1", *SMALL, "run_dir=a"]
    return main([*settings, *poison, f"+callbacks.fault.steps={steps}", *overrides])


def bad_batches() -> list[dict[str, str]]:
    with Path("a/bad_batches.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights() -> dict[str, Any]:
    state: dict[str, Any] = read_checkpoint(Path("a/checkpoints/last.ckpt"))["state_dict"]
    return state


def test_a_bad_loss_stops_the_run_and_names_its_videos(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(videos, "trainer.max_steps=4", steps="[2]") == 1
    told = capsys.readouterr().err
    assert "The loss of step 2 is nan." in told
    assert "a/bad_batches.csv" in told
    assert "bad_loss=skip" in told
    assert "Traceback" not in told
    rows = bad_batches()
    assert [row["step"] for row in rows] == ["1"] * 4 + ["2"] * 4  # the step before too
    assert [row["loss"] == "nan" for row in rows] == [False] * 4 + [True] * 4
    assert len({row["video_id"] for row in rows[4:]}) == 4
    assert all((videos / row["path"]).is_file() for row in rows)
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 2
    assert all(value.isfinite().all() for value in weights().values())


def test_a_bad_step_is_skipped_and_leaves_nothing_behind(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(videos, "trainer.max_steps=5", "bad_loss=skip", steps="[2]") == 0
    assert "Step 2 was skipped" in capsys.readouterr().err
    rows = read_metrics(Path("a"))
    assert [row["train/loss"] == "nan" for row in rows] == [False, False, True, False, False]
    assert [row["train/skipped_steps"] for row in rows] == ["", "", "1.0", "1.0", "1.0"]
    assert all(value.isfinite().all() for value in weights().values())
    assert [row["step"] for row in bad_batches()] == ["2"] * 4


@pytest.mark.slow
def test_what_a_skipped_step_must_not_change(videos: Path) -> None:
    """Weights, statistics and optimizer after a last step that was skipped are those of the checkpoint before it."""
    common = "trainer.max_steps=3", "bad_loss=skip", "optimizer=sgd", "scheduler=constant", "method=byol"
    small = [text for text in SMALL if "queue" not in text]
    settings = ["dataset=folder", f"dataset.root={videos}", "checkpoint_every_steps=1", "keep_last=3", *small]
    poison = f"+callbacks.fault._target_={Poison.__module__}.Poison", "+callbacks.fault.rank=0"
    assert main([*settings, *common, *poison, "+callbacks.fault.steps=[2]", "run_dir=a"]) == 0
    before, after = (read_checkpoint(Path(f"a/checkpoints/step_{step}.ckpt")) for step in (2, 3))
    copies = {name for name in before["state_dict"] if name.startswith("target_encoder.")}
    moved = {name for name in copies if "running" not in name and "num_batches" not in name}
    for name, value in before["state_dict"].items():
        if name not in moved:  # the copy takes its step towards the (sound) network before the loss is computed
            assert torch.equal(value, after["state_dict"][name]), name
    old, new = before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"]
    assert all(torch.equal(old[key]["momentum_buffer"], new[key]["momentum_buffer"]) for key in old)


def test_too_many_in_a_row_end_the_run(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "trainer.max_steps=6", "bad_loss=skip", "bad_loss_in_a_row=2"
    assert run(videos, *arguments, steps="[1,2,3,4]") == 1
    assert "3 steps in a row" in capsys.readouterr().err
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 3


@pytest.mark.slow
def test_a_good_step_between_starts_the_count_anew(videos: Path) -> None:
    arguments = "trainer.max_steps=6", "bad_loss=skip", "bad_loss_in_a_row=2"
    assert run(videos, *arguments, steps="[0,1,3,4]") == 0
    assert float(read_metrics(Path("a"))[-1]["train/skipped_steps"]) == 4


@pytest.mark.slow
def test_one_bad_batch_of_several_that_are_accumulated_skips_their_step(videos: Path) -> None:
    arguments = "trainer.max_steps=3", "trainer.accumulate_grad_batches=2", "bad_loss=skip"
    assert run(videos, *arguments, steps="[1]") == 0
    assert [row["step"] for row in bad_batches()] == ["1"] * 8
    assert all(value.isfinite().all() for value in weights().values())


def test_skipping_is_not_for_a_scaled_loss(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(videos, "trainer.precision=16-mixed", "bad_loss=skip", "trainer.max_steps=1", steps="[]") == 2
    assert "bad_loss=skip with trainer.precision=16-mixed" in capsys.readouterr().err


def test_a_queue_takes_no_key_that_is_not_finite() -> None:
    queue = FeatureQueue(4, 2)
    queue.push(torch.ones(4, 2), torch.arange(4))
    keys = torch.tensor([[2.0, 2.0], [float("nan"), 0.0], [float("inf"), 0.0]])
    queue.push(keys, torch.tensor([10, 11, 12]))
    assert queue.features.tolist() == [[2.0, 2.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    assert queue.owners.tolist() == [10, 1, 2, 3]
    assert int(queue.pointer) == 3


class NoEvent:
    """Stands in for that of a GPU."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


@pytest.mark.parametrize(("every", "saved"), [(1, 2), (3, None)])
def test_a_loss_that_is_read_late_is_read_before_it_is_saved(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], every: int, saved: int | None
) -> None:
    """As on a GPU: at the checkpoint of its own step, or one batch later."""
    monkeypatch.setattr(bad_loss, "_is_known", lambda loss: False)
    monkeypatch.setattr(torch.cuda, "Event", NoEvent)
    step = 1 if saved is None else 2
    assert run(videos, "trainer.max_steps=6", f"checkpoint_every_steps={every}", steps=f"[{step}]") == 1
    assert f"The loss of step {step} is nan." in capsys.readouterr().err
    assert [row["step"] for row in bad_batches()] == [str(step - 1)] * 4 + [str(step)] * 4
    checkpoint = Path("a/checkpoints/last.ckpt")
    assert (read_checkpoint(checkpoint)["global_step"] if checkpoint.exists() else None) == saved


def test_the_loss_of_the_last_step_is_read_too(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_loss, "_is_known", lambda loss: False)
    monkeypatch.setattr(torch.cuda, "Event", NoEvent)
    assert run(videos, "trainer.max_steps=2", steps="[1]") == 1


@pytest.mark.gpu
def test_on_a_gpu_a_bad_loss_is_never_saved(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(videos, "trainer=gpu", "trainer.max_steps=6", steps="[2]") == 1
    assert "The loss of step 2 is nan." in capsys.readouterr().err
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 2
