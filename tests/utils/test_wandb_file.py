"""Reading an offline W&B run's file, whole and cut off."""

from pathlib import Path

import pytest
import wandb

from ssl_video.utils.wandb_file import next_step, read_history, read_records, run_files, wait_until_written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 rows, which are several blocks of the file."""
    folder: Path = tmp_path_factory.mktemp("run")
    settings = wandb.Settings(silent=True, x_disable_stats=True)
    run = wandb.init(dir=str(folder), id="abc12345", mode="offline", settings=settings)
    for step in range(400):
        run.log({"train/loss": step / 7, "train/text": "x" * 200}, step=step)
    run.finish()
    wait_until_written(folder, "abc12345")  # finish() does not
    return folder


def test_every_row_comes_back(folder: Path) -> None:
    [file] = run_files(folder, "abc12345")
    rows = read_history(file)
    assert [row["_step"] for row in rows] == list(range(400))
    assert [row["train/loss"] for row in rows] == [step / 7 for step in range(400)]
    assert file.stat().st_size > 3 * 32 * 1024
    assert next_step(folder, "abc12345") == 400


def test_a_file_cut_off_anywhere_gives_what_comes_before(folder: Path, tmp_path: Path) -> None:
    [file] = run_files(folder, "abc12345")
    content = file.read_bytes()
    cut = tmp_path / "wandb" / "offline-run-1-abc12345" / "run-abc12345.wandb"
    cut.parent.mkdir(parents=True)
    lengths = []
    for length in (0, 3, 7, 20, 32 * 1024 - 3, 32 * 1024 + 5, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:length])
        steps = [row["_step"] for row in read_history(cut)]
        assert steps == list(range(len(steps)))
        assert next_step(tmp_path, "abc12345") == len(steps)
        lengths.append(len(steps))
    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert 150 < lengths[-2] < 250


def test_damaged_pieces_end_the_reading(folder: Path, tmp_path: Path) -> None:
    [file] = run_files(folder, "abc12345")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged = tmp_path / "run.wandb"
    damaged.write_bytes(bytes(content))
    assert 0 < len(list(read_records(damaged))) < len(list(read_records(file)))


def test_a_run_without_files_starts_at_the_first_step(tmp_path: Path) -> None:
    assert next_step(tmp_path, "abc12345") == 0
