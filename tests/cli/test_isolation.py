"""Videos that hang or crash a reader cost a run neither its life nor its order, and the next run leaves them out."""

import json
from pathlib import Path

import pytest

from ssl_video.cli.train import main
from ssl_video.utils.checkpoint import read_checkpoint
from support.folders import SMALL
from support.videos import write_video

pytestmark = pytest.mark.usefixtures("own_folder")

BAD = ("abort", "raise")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in (*(f"good_{number:02d}" for number in range(10)), *BAD):
        write_video(root / f"{name}.mp4", num_frames=16, height=40, width=40)
    return root


def command(videos: Path, *overrides: str) -> list[str]:
    isolated = [word for word in SMALL if not word.startswith("reader.")]
    reader = "reader._target_=support.stub_readers.MixedReader"
    words = ["dataset=folder", f"dataset.root={videos}", "cache_dir=cache", "checkpoint_every_steps=2", reader]
    return [*words, "dataset.max_unreadable_share=0.5", *isolated, *overrides]


@pytest.mark.slow
def test_failures_are_written_down_and_left_out_of_the_next_run(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(videos, "trainer.max_epochs=2", "run_dir=first")) == 0
    record = json.loads(Path("first/run.json").read_text())
    assert (record["used"], record["quarantined"], record["steps"]) == (12, 0, 6)
    failures = Path("first/decode_failures.csv").read_text()
    assert "abort.mp4,ended its decoder: SIGABRT" in failures
    assert "raise.mp4,KeyError: 'moov'" in failures
    assert "quarantine" not in capsys.readouterr().out

    assert main(command(videos, "trainer.max_epochs=1", "run_dir=second")) == 0
    record = json.loads(Path("second/run.json").read_text())
    assert (record["used"], record["quarantined"], record["steps"]) == (10, 2, 2)
    assert "; 2 in quarantine, left out, see cache/quarantine.jsonl" in capsys.readouterr().out
    assert not Path("second/decode_failures.csv").exists()

    # A run that goes on has its own list, and as many steps as it was to have.
    assert main(command(videos, "trainer.max_epochs=3", "resume=first")) == 0
    record = json.loads(Path("first/run.json").read_text())
    assert (record["used"], record["quarantined"], record["steps"]) == (12, 0, 9)
    assert len(read_checkpoint(Path("first/checkpoints/last.ckpt"))["VideoDataModule"]["rows"]) == 12


@pytest.mark.slow
def test_a_quarantine_can_be_left_unread(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(videos, "trainer.max_epochs=1", "run_dir=a", "dataset.quarantine=false")) == 0
    assert not Path("cache/quarantine.jsonl").exists()
