"""Pictures change nothing of a run, come when they are due, and never end it."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_video.callbacks.pictures import Pictures
from ssl_video.cli.train import main
from ssl_video.utils.errors import InputError
from ssl_video.utils.pictures import Picture, Still
from support.folders import SMALL, labelled_folder, numbered_folder, run_command

STILL = Still(np.zeros((4, 4, 3), dtype=np.uint8), "black")


class Shown:
    """Takes pictures."""

    def __init__(self) -> None:
        self.pictures: list[tuple[str, int]] = []

    def show(self, name: str, picture: Picture, *, step: int) -> None:
        self.pictures.append((name, step))


def run_steps(callback: Pictures, *, first: int, last: int, rank: int = 0) -> None:
    trainer: Any = SimpleNamespace(global_step=first, is_global_zero=rank == 0, loggers=[])
    module: Any = SimpleNamespace(steps_per_epoch=4, total_steps=last)
    callback.on_train_start(trainer, module)
    for step in range(first + 1, last + 1):
        trainer.global_step = step
        for _ in range(2):  # of two batches whose gradients add up to one step
            callback.on_train_batch_end(trainer, module, None, None, 0)


def pictures(shown: Shown, *, every_epochs: float = 2.0) -> Pictures:
    def first(module: Any, batch: Any, step: int) -> Mapping[str, Picture]:
        torch.rand(1), np.random.rand(1)
        return {"clips": STILL}

    def regular(module: Any, batch: Any, step: int) -> Mapping[str, Picture]:
        return {"map": STILL}

    return Pictures(at_start=[first], regularly=[regular], every_epochs=every_epochs, others=[shown])


def test_pictures_come_at_the_first_step_every_few_epochs_and_at_the_end() -> None:
    shown = Shown()
    run_steps(pictures(shown), first=0, last=18)
    assert shown.pictures == [("pictures/clips", 0), ("pictures/map", 7), ("pictures/map", 15), ("pictures/map", 17)]


def test_a_run_that_goes_on_does_not_show_the_first_again() -> None:
    shown = Shown()
    run_steps(pictures(shown), first=8, last=16)
    assert shown.pictures == [("pictures/map", 15)]


def test_only_the_first_process_draws() -> None:
    shown = Shown()
    run_steps(pictures(shown), first=0, last=8, rank=1)
    assert shown.pictures == []


def test_random_states_are_put_back() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    wanted = (torch.get_rng_state(), np.random.get_state()[1].tolist())  # type: ignore[index,union-attr]
    run_steps(pictures(Shown()), first=0, last=2)
    assert torch.equal(torch.get_rng_state(), wanted[0])
    assert np.random.get_state()[1].tolist() == wanted[1]  # type: ignore[index,union-attr]


def test_a_picture_that_cannot_be_made_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(module: Any, batch: Any, step: int) -> Mapping[str, Picture]:
        raise InputError("too few videos")

    shown = Shown()
    run_steps(Pictures(regularly=[fails], every_epochs=0.25, others=[shown]), first=0, last=5)
    assert shown.pictures == []
    assert capsys.readouterr().err == "step 1: a picture could not be made: too few videos\n"


def test_epochs_must_be_some() -> None:
    with pytest.raises(InputError, match=r"every_epochs=0 must be above 0"):
        Pictures(every_epochs=0)


@pytest.mark.slow
def test_training_is_the_same_to_the_bit_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    videos = labelled_folder(tmp_path / "videos", videos=24)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=4"]
    often = ["pictures.show=true", "pictures.every_epochs=0.01", "pictures.videos=8"]
    assert main([*words, "run_dir=with", *often]) == 0
    assert main([*words, "run_dir=without"]) == 0
    assert len(list(Path("with/pictures").glob("*.png"))) == 1 + 3 * 4
    assert not Path("without/pictures").exists()
    assert Path("with/metrics.csv").read_bytes() == Path("without/metrics.csv").read_bytes()
    files = [f"{run}/checkpoints/last.ckpt" for run in ("with", "without")]
    states = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_videos_without_labels_have_neighbours_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    videos = numbered_folder(tmp_path / "videos", videos=12)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=1", "run_dir=run"]
    assert main([*words, "pictures.show=true"]) == 0
    assert "could not be made" not in capsys.readouterr().err
    assert {file.name for file in Path("run/pictures").glob("*.png")} == {
        f"{name}_step_000000.png" for name in ("clips", "neighbours", "feature_map", "units")
    }


@pytest.mark.slow
def test_one_of_two_processes_draws_and_both_train_the_same(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=24)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=2", "trainer.devices=2"]
    words += ["strategy=ddp_cpu"]
    often = ["pictures.show=true", "pictures.every_epochs=0.01", "pictures.videos=8"]
    for run, more in (("with", often), ("without", [])):
        code, output = run_command("train.py", [*words, *more, f"run_dir={run}"], folder=tmp_path)
        assert code == 0, output
        assert "could not be made" not in output
    assert len(list((tmp_path / "with" / "pictures").glob("*.png"))) == 1 + 3 * 2
    metrics = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("with", "without")]
    assert metrics[0] == metrics[1]
