"""Runs built to collapse cross a bar, and healthy ones with the same code, steps and sizes cross none."""

from pathlib import Path

import pytest

from ssl_video.cli.train import main
from support.folders import SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

BARS = "callbacks.health.bars"
# The embedded data set, small enough for a few steps a second on one core.
MOVING = (
    *("dataset.source.num_videos=96", "dataset.source.size=40", "dataset.source.num_frames=24"),
    *("dataset.num_workers=0", "reader.isolate=false", "batch_size=12", "sampler.num_frames=4"),
    *("transform.size=32", "input_transform.resize=32", "input_transform.crop=32"),
    *("trainer.max_steps=150", "callbacks.health.every_steps=10", "callbacks.health.window_clips=96"),
    *(f"{BARS}.health_queue_noise_share.from_step=100", "checkpoint_every_steps=1000"),
)
# Method, what is done to it, and the value whose bar is crossed then; none by the runs beside them that are healthy.
RUNS = [
    ("byol", "", None),
    ("byol", "method.predictor_layers=0", "health/embedding_std"),
    ("byol", "method.momentum=0 method.momentum_schedule=constant", "health/ema_distance"),
    ("simclr", "", None),
    ("simclr", "method.temperature=100", "health/loss_spread"),
    ("simclr", "optimizer.lr=100", "health/feature_dead_share"),
    ("moco", "", None),
    ("moco", "method.queue_length=100000", "health/queue_noise_share"),
]


def warned(capsys: pytest.CaptureFixture[str], words: list[str]) -> set[str]:
    """Runs it and returns the values that were warned of."""
    assert main(words) == 0
    told = capsys.readouterr().err.splitlines()
    return {line.split()[1] for line in told if line.startswith("Warning: ")}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "change", "value"), RUNS)
def test_a_collapse_is_told_and_a_healthy_run_is_not(
    method: str, change: str, value: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = warned(capsys, [f"method={method}", *MOVING, "run_dir=run", *change.split()])
    assert (value in found) if value else (found == set())


@pytest.mark.slow
def test_a_copy_that_is_no_slower_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=8)
    own = ["method=byol", "dataset=folder", f"dataset.root={videos}", "trainer.max_steps=4", "scheduler=constant"]
    own += [word for word in SMALL if "queue" not in word]
    own += ["callbacks.health.every_steps=1", f"{BARS}.health_ema_distance.from_step=2"]
    assert warned(capsys, [*own, "run_dir=healthy"]) == set()
    constant = "method.momentum_schedule=constant"
    assert warned(capsys, [*own, "run_dir=built", "method.momentum=0", constant]) == {"health/ema_distance"}
