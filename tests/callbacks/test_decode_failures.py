"""Videos that fail while training are counted and named; too many end the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.data.batch import ClipBatch, Failure

PATHS = ["a.mp4", "folder, with comma/b.mp4", "c.mp4"]


def batch(size: int, *failures: Failure) -> ClipBatch:
    rows = torch.arange(size)
    return ClipBatch(torch.zeros(size, 1, 3, 1, 2, 2), rows[:, None, None], rows, rows, rows, rows, failures=failures)


def build(
    file: Path, *, max_share: float = 0.1, min_samples: int = 200
) -> tuple[DecodeFailures, dict[str, float], Any]:
    """The callback, what it logs, and a call that gives it a batch."""
    callback = DecodeFailures(file, max_share=max_share, paths=PATHS, min_samples=min_samples)
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=logged.__setitem__)

    def give(samples: ClipBatch, *, step: int = 0) -> None:
        trainer: Any = SimpleNamespace(global_step=step)
        callback.on_train_batch_end(trainer, module, None, samples, 0)

    return callback, logged, give


def test_nothing_is_written_while_nothing_fails(tmp_path: Path) -> None:
    _, logged, give = build(tmp_path / "failures.csv")
    give(batch(4))
    assert logged == {"data/decode_failures": 0.0}
    assert not list(tmp_path.iterdir())


def test_each_failure_is_counted_and_named(tmp_path: Path) -> None:
    file = tmp_path / "failures.csv"
    _, logged, give = build(file)
    give(batch(4, Failure(1, "no frames")), step=3)
    give(batch(4), step=4)
    give(batch(4, Failure(0, "cut off"), Failure(1, "no frames")), step=5)
    assert logged == {"data/decode_failures": 3.0}
    assert file.read_text().splitlines() == [
        "step,path,reason",
        '3,"folder, with comma/b.mp4",no frames',
        "5,a.mp4,cut off",
        '5,"folder, with comma/b.mp4",no frames',
    ]


def test_a_resumed_run_appends_without_a_second_header(tmp_path: Path) -> None:
    file = tmp_path / "failures.csv"
    for step in (1, 2):
        _, _, give = build(file)
        give(batch(4, Failure(2, "gone")), step=step)
    assert file.read_text().splitlines() == ["step,path,reason", "1,c.mp4,gone", "2,c.mp4,gone"]


def test_too_large_a_share_ends_the_run_once_there_are_enough_samples(tmp_path: Path) -> None:
    _, _, give = build(tmp_path / "failures.csv", max_share=0.25, min_samples=8)
    give(batch(4, *[Failure(0, "bad")] * 3))  # three of four, but four samples say too little
    with pytest.raises(RuntimeError, match=r"3 of 8 samples could not be decoded, above .*0\.25.*failures\.csv"):
        give(batch(4))


def test_the_share_itself_is_allowed(tmp_path: Path) -> None:
    callback, _, give = build(tmp_path / "failures.csv", max_share=0.25, min_samples=8)
    give(batch(4, *[Failure(0, "bad")] * 2))
    give(batch(4))
    assert (callback.failures, callback.samples) == (2, 8)
    with pytest.raises(RuntimeError):
        give(batch(1, Failure(0, "bad")))
