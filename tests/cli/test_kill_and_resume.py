"""SIGKILL at random steps inside an epoch costs no method a bit: the run goes on as if nothing had happened."""

import json
import random
from pathlib import Path

import pytest
import torch

from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.kept import newest_intact
from support.folders import labelled_folder, read_metrics
from support.killed import train
from support.methods import METHODS

pytestmark = pytest.mark.slow

STEPS, EVERY = 9, 3  # 20 videos are 5 batches of 4, so the checkpoints of 3 and 6 steps lie inside an epoch
KILLED = -9
# Where a process is killed, and steps after which; "write" is in the middle of the next checkpoint that is due.
PLACES = {"step": (0, 1, 2), "end": (0, 1, 2), "write": (1, 2)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=24, num_frames=40)


def command(method: str, videos: Path, *more: str) -> list[str]:
    """Two of the six groups are for testing; what learns from few labels has batches of two."""
    own = ["batch_size=2", "label_fraction=0.3"] if method == "tcl" else ["batch_size=4"]
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    return [
        f"method={method}",
        *data,
        "dataset.test_groups=[5]",
        "cache_dir=cache",
        "dataset.num_workers=0",
        "reader.isolate=false",
        "resume=auto",
        f"trainer.max_steps={STEPS}",
        f"checkpoint_every_steps={EVERY}",
        *own,
        *more,
    ]


def newest(run: Path) -> int:
    """Steps of the newest checkpoint that can be read."""
    found = newest_intact(run / "checkpoints")
    return 0 if found is None else int(found.state["global_step"])


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return content


def is_same(run: Path, whole: Path) -> bool:
    """Every step once, with the same values, and the same weights, all to the last bit."""
    rows, expected = read_metrics(run), read_metrics(whole)
    one, two = weights(run), weights(whole)
    return (
        [int(row["step"]) for row in rows] == list(range(STEPS))
        and [row["train/loss"] for row in rows] == [row["train/loss"] for row in expected]
        and one.keys() == two.keys()
        and all(torch.equal(one[name], two[name]) for name in two)
    )


def killed_twice(words: list[str], folder: Path, *, seed: str) -> list[int]:
    """Starts a run and kills it after the first and again after the second checkpoint; the steps it must resume."""
    draw = random.Random(seed)
    expected = []
    for round_number in (1, 2):
        place = draw.choice(sorted(PLACES))
        after = EVERY * round_number + draw.choice(PLACES[place])
        assert train([*words, "run_dir=run"], folder=folder, kill=(after, place)) == KILLED, (
            folder / "output.txt"
        ).read_text()
        expected.append(EVERY * round_number)
        print(f"{seed}: killed after {after} steps ({place})")
        assert newest(folder / "run") == expected[-1] > 0
    return expected


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, videos: Path, tmp_path: Path) -> None:
    words = command(method, videos)
    expected = killed_twice(words, tmp_path, seed=method)
    for run in ("run", "whole"):
        assert train([*words, f"run_dir={run}"], folder=tmp_path) == 0, (tmp_path / "output.txt").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["resumed_at"] == expected
    assert is_same(tmp_path / "run", tmp_path / "whole")
    assert not list((tmp_path / "run" / "checkpoints").glob(".*.partial"))


def test_with_workers_and_decoding_processes(videos: Path, tmp_path: Path) -> None:
    """Those of the killed runs may still be there when the next one starts."""
    words = command("moco", videos, "dataset.num_workers=1", "reader.isolate=true", "dataset.clips_per_open=2")
    killed_twice(words, tmp_path, seed="workers")
    for run in ("run", "whole"):
        assert train([*words, f"run_dir={run}"], folder=tmp_path) == 0, (tmp_path / "output.txt").read_text()
    assert is_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_control_whose_position_is_wrong_by_one_batch_is_noticed(shift: int, videos: Path, tmp_path: Path) -> None:
    words = command("moco", videos)
    killed_twice(words, tmp_path, seed="control")
    assert train([*words, "run_dir=run"], folder=tmp_path, shift=shift) == 0, (tmp_path / "output.txt").read_text()
    assert train([*words, "run_dir=whole"], folder=tmp_path) == 0
    assert [int(row["step"]) for row in read_metrics(tmp_path / "run")] == list(range(STEPS))
    assert not is_same(tmp_path / "run", tmp_path / "whole")
