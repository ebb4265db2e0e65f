"""Videos that fail while training are counted and named; too many end the run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.data.batch import ClipBatch, Failure
from ssl_video.utils.distributed import rank
from ssl_video.utils.errors import RunFault
from support.gloo import run_in_two_processes

PATHS = ["a.mp4", "folder, with comma/b.mp4", "c.mp4"]


def batch(size: int, *failures: Failure, **restarts: int) -> ClipBatch:
    rows = torch.arange(size)
    clips = torch.zeros(size, 1, 3, 1, 2, 2)
    return ClipBatch(clips, rows[:, None, None], rows, rows, rows, rows, failures=failures, restarts=restarts)


def build(
    file: Path, *, max_share: float = 0.1, min_samples: int = 200, keep: Callable[[int, str], object] | None = None
) -> tuple[DecodeFailures, dict[str, float], Any]:
    """The callback, what it logs, and a call that gives it a batch."""
    callback = DecodeFailures(file, max_share=max_share, path_of=PATHS.__getitem__, keep=keep, min_samples=min_samples)
    logged: dict[str, float] = {}

    def give(samples: ClipBatch, *, step: int = 0) -> None:
        trainer: Any = SimpleNamespace(global_step=step, callback_metrics=logged)
        callback.on_train_batch_end(trainer, None, None, samples, 0)  # type: ignore[arg-type]

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
    with pytest.raises(RuntimeError, match=r"(?s)3 of 8 samples could not be decoded, above .*0\.25.*failures\.csv"):
        give(batch(4))


def test_the_share_itself_is_allowed(tmp_path: Path) -> None:
    callback, _, give = build(tmp_path / "failures.csv", max_share=0.25, min_samples=8)
    give(batch(4, *[Failure(0, "bad")] * 2))
    give(batch(4))
    assert (callback.failures, callback.samples) == (2, 8)
    with pytest.raises(RuntimeError):
        give(batch(1, Failure(0, "bad")))


def test_the_end_of_the_run_lists_videos_and_reasons(tmp_path: Path) -> None:
    _, _, give = build(tmp_path / "failures.csv", min_samples=8)
    give(batch(4, Failure(0, "bad"), Failure(2, "gave no answer in 60 s")))
    with pytest.raises(RuntimeError) as end:
        give(batch(4, Failure(2, "ended its decoder: SIGSEGV")))
    lines = str(end.value).splitlines()
    assert lines[1:3] == ["  c.mp4: ended its decoder: SIGSEGV (2 times)", "  a.mp4: bad"]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    callback, _, _ = build(tmp_path / "failures.csv", min_samples=1)
    callback.path_of = str
    with pytest.raises(RuntimeError, match="… and 5 more"):
        callback.on_train_batch_end(
            SimpleNamespace(global_step=0, callback_metrics={}),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            None,
            batch(4, *[Failure(row, "bad") for row in range(25)]),
            0,
        )


def test_a_video_is_put_into_quarantine_once(tmp_path: Path) -> None:
    kept: list[tuple[int, str]] = []
    _, _, give = build(tmp_path / "failures.csv", keep=lambda row, reason: kept.append((row, reason)))
    give(batch(4, Failure(1, "first"), Failure(0, "other")))
    give(batch(4, Failure(1, "second")))
    assert kept == [(1, "first"), (0, "other")]


def test_a_quarantine_that_cannot_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def keep(row: int, reason: str) -> None:
        raise OSError(28, "No space left on device")

    _, _, give = build(tmp_path / "failures.csv", keep=keep)
    for row in (0, 1):
        give(batch(4, Failure(row, "bad")))
    assert capsys.readouterr().err == "The quarantine cannot be written: [Errno 28] No space left on device\n"


def test_decoding_processes_that_were_replaced_are_logged(tmp_path: Path) -> None:
    _, logged, give = build(tmp_path / "failures.csv")
    give(batch(4))
    assert set(logged) == {"data/decode_failures"}
    give(batch(4, deadline=1, recycled=2))
    give(batch(4, died=3))
    assert logged == {"data/decode_failures": 0.0, "data/decode_restarts": 4.0, "data/decode_recycles": 2.0}


def test_a_video_that_fails_counts_for_all_samples_of_its_opening(tmp_path: Path) -> None:
    callback, _, give = build(tmp_path / "failures.csv", max_share=0.3, min_samples=16)
    callback.samples_per_open = 4
    give(batch(4, Failure(1, "no frames"), Failure(2, "no frames")))
    give(batch(4))
    give(batch(4))
    with pytest.raises(RuntimeError, match=r"8 of 16 samples"):
        give(batch(4))


def _two_ranks_meet_failures(file: Path, failing: dict[int, list[int]]) -> tuple[list[float], str | None]:
    """Ten batches of four on each rank; those of ``failing`` have a failure. What was logged, and how it ended."""
    callback, logged, give = build(file, max_share=0.2, min_samples=16)
    callback.agree_every_batches = 2
    seen = []
    try:
        for step in range(10):
            bad = step in failing.get(rank(), [])
            give(batch(4, *([Failure(rank(), f"rank {rank()}")] if bad else [])), step=step)
            seen.append(float(logged["data/decode_failures"]))
        callback.on_train_end(None, None)  # type: ignore[arg-type]
    except RunFault as end:
        return seen, str(end)
    return seen, None


@pytest.mark.slow
def test_ranks_count_together_and_one_writes(tmp_path: Path) -> None:
    """Rank 0 meets none; both log the same all the time, and the file has one header and all rows."""
    file = tmp_path / "failures.csv"
    results = run_in_two_processes(_two_ranks_meet_failures, file, {1: [0, 3, 9]})
    assert results[0] == results[1]
    assert results[0] == ([0, 1, 1, 2, 2, 2, 2, 2, 2, 3], None)
    expected = ["step,path,reason", *(f'{step},"folder, with comma/b.mp4",rank 1' for step in (0, 3, 9))]
    assert file.read_text().splitlines() == expected


def test_ranks_end_together_by_the_share_of_all(tmp_path: Path) -> None:
    """A quarter of rank 1's samples is an eighth of all: no reason to end. A half is one, on both at the same step."""
    bearable = run_in_two_processes(_two_ranks_meet_failures, tmp_path / "a.csv", {1: list(range(10))})
    assert [end for _, end in bearable] == [None, None]
    (first, told), (second, silent) = run_in_two_processes(
        _two_ranks_meet_failures, tmp_path / "b.csv", {0: list(range(10)), 1: list(range(10))}
    )
    assert len(first) == len(second) < 10
    assert told is not None and "samples could not be decoded" in told
    assert silent == ""


def _rank_1_is_ended(file: Path) -> None:
    callback, _, give = build(file)
    give(batch(4, Failure(rank(), "gone")))
    if rank() == 1:
        callback.on_exception(None, None, KeyboardInterrupt())  # type: ignore[arg-type]


def test_what_was_not_told_yet_is_written_when_a_rank_is_ended(tmp_path: Path) -> None:
    run_in_two_processes(_rank_1_is_ended, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == ["step,path,reason", '0,"folder, with comma/b.mp4",gone']
