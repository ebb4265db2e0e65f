"""The picture of what a method sees: the right frames under the right numbers, and refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_video.cli.show import main, watch
from ssl_video.pretext.permutations import draw_permutations
from support.folders import SMALL, numbered_folder
from support.methods import build_method, random_batch


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=8)


def test_strips_name_the_frames_that_the_network_gets() -> None:
    """Every strip of a shuffled tuple shows the pixels of the frames whose numbers stand beneath."""
    method, config = build_method("vcop")
    numbers = torch.arange(3)[:, None] * 100 + torch.arange(8)  # [V, T]: each clip has numbers of its own
    batch = dataclasses.replace(random_batch(config), indices=numbers.repeat(4, 1, 1))
    strips = watch(method, batch, seed=3)
    torch.manual_seed(3)
    permutations, _ = draw_permutations(4, 3, device="cpu")
    assert len(strips) == 12
    for number, strip in enumerate(strips):
        video, place = divmod(number, 3)
        clip = int(permutations[video, place])
        assert strip.video == video
        assert strip.frames == [clip * 100 + frame for frame in range(8)]
        shown = batch.clips[video, clip].permute(1, 2, 3, 0).numpy()
        assert np.allclose(strip.images, (shown - shown.min()) / (shown.max() - shown.min()), atol=1e-6)


def test_a_momentum_copy_is_shown_by_its_name() -> None:
    method, config = build_method("moco")
    strips = watch(method, random_batch(config), seed=0)
    assert {strip.network for strip in strips} == {"backbone", "key_encoder"}


def test_watching_leaves_the_method_as_it_was() -> None:
    method, config = build_method("vcop")
    watch(method, random_batch(config), seed=0)
    assert "check_clips" not in vars(method.backbone)


def test_the_picture_is_written(videos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheets" / "moco.png"
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "--videos", "2", "-o", str(target)]
    assert main(words) == 0
    with Image.open(target) as picture:
        # Two videos, two clips each, by the backbone and by its momentum copy: eight rows of tiles.
        assert picture.width == 480
        assert picture.height > 8 * 96
    assert list(target.parent.iterdir()) == [target]


def test_one_video_of_a_method_that_needs_more(tmp_path: Path, videos: Path) -> None:
    target = tmp_path / "one.png"
    words = ["method=simclr", "dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0", "batch_size=4"]
    assert main([*words, "--videos", "1", "-o", str(target)]) == 0
    with Image.open(target) as picture:
        assert 2 * 96 < picture.height < 4 * 96  # two clips


def test_a_picture_that_cannot_be_written(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    words = ["dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0", "batch_size=4"]
    assert main([*words, "-o", str(tmp_path / "file" / "one.png")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--videos", "0"], "--videos=0 must be 1 to 16"),
        (["--step", "-1"], "--step=-1 must be at least 0"),
        (["picture"], "'picture' is neither an option nor an override"),
        (["method=mocco"], "did you mean 'moco'"),
        (["dataset=folder"], "dataset=folder needs dataset.root=DIR"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
