"""Every test video is asked exactly once: none is dropped with an odd last batch, none comes twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_video.cli import evaluate
from support.folders import labelled_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


TRAIN = 8
RANDOM = ("checkpoint=random", "backbone=r3d_tiny", "input_transform.resize=32", "input_transform.crop=32")
TINY = ("num_frames=4", "evaluation.num_clips=2", "baselines=[]")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=TRAIN + 9)


def evaluated(videos: Path, *overrides: str, num_test: int, wrong: int, name: str = "labels.csv") -> dict[str, Any]:
    """The result on ``num_test`` videos, dark or bright as they are labelled, but for the one at place ``wrong``."""
    rows = []
    for number in range(TRAIN + num_test):
        place = number - TRAIN
        label = ("dark", "bright")[(number + (place == wrong)) % 2]
        rows.append(f"video_{number:02d}.mp4,{label},{'train' if place < 0 else 'test'}")
    labels = Path(name).absolute()
    labels.write_text("\n".join(["path,label,split", *rows]) + "\n")
    words = [*RANDOM, *TINY, "dataset=folder", f"dataset.root={videos}", f"dataset.labels={labels}", *overrides]
    assert evaluate.main([*words, f"run_dir={name}_result"]) == 0
    content: dict[str, Any] = json.loads(Path(f"{name}_result", "metrics.json").read_text())
    return content


@pytest.mark.parametrize("num_test", [1, 5, 9])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_no_video_of_the_last_batch_is_dropped(videos: Path, num_test: int, batch_size: int) -> None:
    """The one wrong label is that of the last video, alone in its batch for batches of 2 and 4."""
    result = evaluated(
        videos, f"batch_size={batch_size}", "dataset.num_workers=0", num_test=num_test, wrong=num_test - 1
    )
    assert result["videos"] == num_test
    assert result["metrics"]["top1"] == pytest.approx((num_test - 1) / num_test)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", range(5))
def test_each_place_counts_once_whatever_the_workers(videos: Path, wrong: int) -> None:
    """Two workers, batches of two: one of them gets the odd video."""
    words = ["batch_size=2", "dataset.num_workers=2"]
    result = evaluated(videos, *words, num_test=5, wrong=wrong)
    assert result["videos"] == 5
    assert result["metrics"]["top1"] == pytest.approx(4 / 5)


def test_the_train_part_is_whole_too(videos: Path) -> None:
    """With batches of 7 the eighth train video comes alone; a gallery without it would not find its twin."""
    root = Path("twins")
    root.mkdir()
    for number in range(TRAIN):
        (root / f"{number}.mp4").symlink_to(videos / f"video_{number:02d}.mp4")
    (root / "twin.mp4").symlink_to(videos / f"video_{TRAIN - 1:02d}.mp4")
    rows = [f"{number}.mp4,{'rare' if number == TRAIN - 1 else 'common'},train" for number in range(TRAIN)]
    Path("twins.csv").write_text("\n".join(["path,label,split", *rows, "twin.mp4,rare,test"]) + "\n")
    words = [*RANDOM, *TINY, "dataset=folder", f"dataset.root={root}", "dataset.labels=twins.csv", "evaluation.k=1"]
    assert evaluate.main([*words, "batch_size=7", "dataset.num_workers=0", "run_dir=result"]) == 0
    result = json.loads(Path("result/metrics.json").read_text())
    assert (result["videos"], result["metrics"]["top1"]) == (1, 1.0)


def test_videos_that_cannot_be_read_are_counted_apart(videos: Path) -> None:
    """One is gone, one is cut off: neither is asked, neither is forgotten."""
    root = Path("own")
    root.mkdir()
    for file in videos.glob("*.mp4"):
        (root / file.name).write_bytes(file.read_bytes())
    (root / f"video_{TRAIN:02d}.mp4").unlink()
    broken = root / f"video_{TRAIN + 2:02d}.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    words = ["batch_size=4", "dataset.num_workers=0", "dataset.max_unreadable_share=0.5"]
    result = evaluated(root, *words, num_test=7, wrong=6)
    assert (result["videos"], result["missing"], result["undecodable"]) == (5, 1, 1)
    assert result["metrics"]["top1"] == pytest.approx(4 / 5)
