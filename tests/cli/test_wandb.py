"""Weights & Biases, offline: no account, no network, and the run's own file holds what metrics.csv holds."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from ssl_video.cli.train import main
from support.folders import SMALL, labelled_folder, read_metrics

HEADER = b":W&B"  # then two bytes of magic number and one of version
BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSL_VIDEO_RUN_DIR", raising=False)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each piece of a log in blocks of 32 KiB, as LevelDB writes it."""
    place = 7
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for a piece's header: zeros
            place += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[place : place + 7])
        piece = content[place + 7 : place + 7 + length]
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        yield kind, piece
        place += 7 + length


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """The messages of a .wandb file."""
    content = file.read_bytes()
    assert content.startswith(HEADER)
    joined = b""
    for kind, piece in pieces(content):
        joined = piece if kind in (FULL, FIRST) else joined + piece
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(joined)
            yield record


def history(file: Path) -> list[dict[str, float]]:
    """What was logged, one dictionary per call."""
    rows = [record.history for record in records(file) if record.WhichOneof("record_type") == "history"]
    return [{".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]


def test_offline_run_holds_what_metrics_csv_holds(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=12)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=5", "trainer.log_every_n_steps=1"]
    assert main([*words, "logger=wandb", "logger.wandb.offline=true", "run_dir=run"]) == 0
    files = list(Path("run").rglob("*.wandb"))
    assert len(files) == 1
    assert files[0].parent.name.startswith("offline-run-")
    assert files[0].parent.parent == Path("run/wandb")
    logged = [row for row in history(files[0]) if "train/loss" in row]
    written = read_metrics(Path("run"))
    assert [row["trainer/global_step"] for row in logged] == [int(row["step"]) for row in written] == [0, 1, 2, 3, 4]
    for key in ("train/loss", "train/info_nce"):
        assert [row[key] for row in logged] == pytest.approx([float(row[key]) for row in written], rel=1e-6)
    assert len({row["train/loss"] for row in logged}) == 5


def test_each_job_of_a_sweep_is_a_run_of_its_own(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=8)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=2", "trainer.log_every_n_steps=1"]
    assert main(["-m", *words, "logger=wandb", "logger.wandb.offline=true", "seed=0,1"]) == 0
    runs = sorted(Path("outputs/sweeps").glob("*/*/"))
    assert len(runs) == 2
    for run in runs:
        (file,) = run.rglob("*.wandb")
        losses = [row["train/loss"] for row in history(file) if "train/loss" in row]
        assert losses == pytest.approx([float(row["train/loss"]) for row in read_metrics(run)], rel=1e-6)
