"""The picture of a W&B run's dashboard, from a run that trained nothing."""

import json
import secrets
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.dashboard import main, read_dashboard
from ssl_video.loggers.wandb_run import WandbRun
from ssl_video.utils.pictures import ClipTable, Still

BLACK = np.zeros((8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    logger = WandbRun(save_dir=str(tmp_path), run_id=secrets.token_hex(4), name="a name", group="a group", offline=True)
    logger.log_hyperparams({"optimizer": {"lr": 0.1}})
    table = ClipTable(("video", "clip"), [("v.mp4", np.stack([BLACK, BLACK + 90]))], Still(BLACK, ""))
    logger.show("pictures/clips", table, step=0)
    for step in range(3):
        logger.show("pictures/feature_map", Still(BLACK + step, ""), step=step)
        logger.log_metrics({"train/loss": 3.0 - step, "val/knn_top1": 0.1 * step}, step=step)
        logger.save()
    logger.log_evaluation({"eval/data/knn/top1": 0.5}, step=3)
    logger.close(exit_code=0)
    (tmp_path / "run.json").write_text(json.dumps({"loggers": {"wandb": logger.identity}}))
    return tmp_path


@pytest.mark.slow
def test_all_that_was_logged_is_read(folder: Path) -> None:
    board = read_dashboard(folder)
    assert (board.name, board.facts["group"], board.config["optimizer.lr"]) == ("a name", "a group", 0.1)
    assert board.curves["train/loss"] == ([0, 1, 2], [3, 2, 1])
    assert board.curves["eval/data/knn/top1"] == ([3], [0.5])
    assert [caption for _, caption in board.clips] == ["v.mp4"]
    with Image.open(board.media["pictures/feature_map"]) as newest:
        assert np.asarray(newest).mean() == pytest.approx(2, abs=1)


@pytest.mark.slow
def test_it_becomes_a_picture(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "-o", str(tmp_path / "out" / "board.png")]) == 0
    with Image.open(tmp_path / "out" / "board.png") as drawn:
        assert drawn.width == 1200
        assert len(drawn.convert("RGB").getcolors(100_000) or []) > 10


def test_a_run_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert main([str(tmp_path)]) == 2
    assert "holds no offline W&B run; train with logger=wandb" in capsys.readouterr().err
